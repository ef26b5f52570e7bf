package nbd.cache;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.Executor;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.testing.FakeBackend;
import nbd.testing.Gate;

/** A small cache over fake storage, and its clients' calls. */
final class Scene implements AutoCloseable {
  static final int BLOCK = 4096;
  static final int SECTOR = 512;

  static final Capabilities CAPABILITIES =
      FakeBackend.all().without(Capability.MULTI_CONN, Capability.CACHE, Capability.ROTATIONAL);

  final FakeBackend storage;
  final CacheStatistics statistics = new CacheStatistics();
  final CacheFilter filter;

  Scene(CacheMode mode, int blocks) {
    this(mode, blocks, numbered(1 << 20));
  }

  /** Nothing is written back in the background: that would depend on a test's speed. */
  Scene(CacheMode mode, int blocks, FakeBackend storage) {
    this(mode, blocks, storage, task -> {});
  }

  private Scene(CacheMode mode, int blocks, FakeBackend storage, Executor background) {
    this.storage = storage;
    // The last duration is a pause that no test outlasts.
    this.filter =
        new CacheFilter(
            storage,
            new CacheSettings(mode, (long) blocks * BLOCK, BLOCK),
            true,
            statistics,
            Duration.ofMinutes(1),
            Duration.ofHours(1),
            background);
  }

  /** Makes one in which much, or what waits for long, is written back in the background. */
  static Scene withBackground(CacheMode mode, int blocks) {
    return new Scene(mode, blocks, numbered(1 << 20), Thread.ofVirtual()::start);
  }

  /** Makes storage of zeroes. */
  static FakeBackend zeroed(int size) {
    return FakeBackend.of(new byte[size], CAPABILITIES);
  }

  /**
   * Makes storage whose sectors begin with their {@link #first} numbers; its extents are all holes.
   */
  static FakeBackend numbered(int size) {
    ByteBuffer content = ByteBuffer.allocate(size);
    for (int at = 0; at + 8 <= size; at += SECTOR) {
      content.putLong(at, first(at));
    }
    FakeBackend storage = FakeBackend.of(content.array(), CAPABILITIES);
    // The extent may run past the range, as the contract allows.
    storage.allocation((offset, length) -> List.of(Extent.hole(size - offset)));
    return storage;
  }

  /** Holds the storage's first call of the command from now on, before its work. */
  Gate stop(Command command) {
    Gate gate = new Gate();
    storage.hook(gate, command);
    return gate;
  }

  /** Holds the storage's first call of the command from now on, after its work. */
  Gate stopAfter(Command command) {
    Gate gate = new Gate();
    storage.after(gate, command);
    return gate;
  }

  /** Makes every later call of the command fail. */
  void fail(Command command, NbdError error) {
    storage.fail(new NbdException(error, "the fake storage fails"), command);
  }

  Handle open() throws IOException {
    return filter.open("", false);
  }

  @Override
  public void close() throws IOException {
    storage.heal();
    filter.close();
  }

  /** Writes one sector that begins with the number. */
  static void write(Handle handle, long offset, long value) throws IOException {
    write(handle, offset, value, CommandFlags.NONE);
  }

  static void write(Handle handle, long offset, long value, CommandFlags flags) throws IOException {
    handle.write(sector(value), offset, flags);
  }

  static ByteBuffer sector(long value) {
    return ByteBuffer.allocate(SECTOR).putLong(0, value);
  }

  /** Reads the number with which a sector begins. */
  static long read(Handle handle, long offset) throws IOException {
    ByteBuffer into = ByteBuffer.allocate(SECTOR);
    handle.read(into, offset);
    return into.getLong(0);
  }

  /** Returns the number with which a sector of numbered storage begins. */
  static long first(long offset) {
    return -1 - offset;
  }
}
