package nbd.cache;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import nbd.protocol.CommandFlags;
import nbd.storage.Handle;

/** A small cache over test storage, and the calls of clients in threads of their own. */
final class Scene implements AutoCloseable {
  static final int BLOCK = 4096;
  static final int SECTOR = 512;

  final TestStorage storage;
  final CacheStatistics statistics = new CacheStatistics();
  final CacheFilter filter;

  Scene(CacheMode mode, int blocks) {
    this(mode, blocks, TestStorage.numbered(1 << 20));
  }

  Scene(CacheMode mode, int blocks, TestStorage storage) {
    this.storage = storage;
    // A pause that no test outlasts.
    this.filter =
        new CacheFilter(
            storage,
            new CacheSettings(mode, (long) blocks * BLOCK, BLOCK),
            true,
            statistics,
            Duration.ofMinutes(1),
            Duration.ofHours(1));
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

  /** The number with which the sector begins. */
  static long read(Handle handle, long offset) throws IOException {
    ByteBuffer into = ByteBuffer.allocate(SECTOR);
    handle.read(into, offset);
    return into.getLong(0);
  }

  /** What a sector of numbered storage begins with. */
  static long first(long offset) {
    return -1 - offset;
  }
}
