package nbd.file;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.WritableByteChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;
import nbd.file.FileSettings.AccessPattern;
import nbd.posix.BlockDevice;
import nbd.posix.Errno;
import nbd.posix.PosixException;
import nbd.posix.PosixFile;
import nbd.posix.PosixFile.Advice;
import nbd.threads.BlockingCalls;
import org.tinylog.Logger;

/**
 * An open file or block device by the system's own calls.
 *
 * <p>The same file is opened several times: once to read, write and lock; once to sync, since the
 * kernel reports a loss once to each opening, and a write must not take the report from a flush;
 * once by the JDK, which sends pages of the file straight to a socket; and for {@link
 * DurableWrites} as often as clients write through at the same time.
 */
final class SystemFile implements OpenFile {
  private final PosixFile file;
  private final PosixFile syncer;
  private final Optional<FileChannel> channel;
  private final Optional<DurableWrites> durableWrites;
  private final Space space;
  private final Traits traits;

  /** The openings, in their order. */
  private final List<AutoCloseable> open;

  /**
   * Opens a file.
   *
   * @param path by which it is found
   * @param name for messages
   * @param isDevice whether it is a block device
   * @param calls by which writes wait until they are durable
   * @return empty on other systems
   * @throws IOException if it cannot be opened that way, or another program has locked it; nothing
   *     is left open then
   */
  static Optional<OpenFile> open(
      Path path, String name, FileSettings settings, boolean isDevice, BlockingCalls calls)
      throws IOException {
    boolean writable = !settings.readOnly();
    Optional<PosixFile> inherited =
        settings.lock() ? LockedImages.take(path, writable, name) : Optional.empty();
    Optional<PosixFile> file =
        inherited.isPresent() ? inherited : PosixFile.open(path, writable, name);
    if (file.isEmpty()) {
      return Optional.empty();
    }
    List<AutoCloseable> open = new ArrayList<>(file.stream().toList());
    try {
      return Optional.of(
          new SystemFile(file.get(), inherited.isPresent(), name, settings, isDevice, calls, open));
    } catch (IOException | RuntimeException | Error failure) {
      close(open);
      throw failure;
    }
  }

  private SystemFile(
      PosixFile file,
      boolean isLocked,
      String name,
      FileSettings settings,
      boolean isDevice,
      BlockingCalls calls,
      List<AutoCloseable> open)
      throws IOException {
    boolean writable = !settings.readOnly();
    this.file = file;
    this.open = open;
    if (settings.lock()) {
      // Locks that are inherited are another process's still, which may go on with them.
      if (!isLocked) {
        ImageLock.take(file, writable, name);
      }
      open.add(LockedImages.hold(file));
    }
    if (isDevice) {
      BlockDevice device = new BlockDevice(file);
      if (writable && device.isReadOnly()) {
        throw new PosixException("open", Errno.EROFS, name);
      }
      space = new DeviceSpace(file, device, name);
    } else {
      space = new FileSpace(file, name);
    }
    file.advise(0, 0, advice(settings.pattern()));
    Path again = file.descriptorPath();
    boolean opensAgain = Files.exists(again);
    if (opensAgain) {
      channel = Optional.of(opened(FileChannel.open(again, StandardOpenOption.READ)));
    } else {
      channel = Optional.empty();
      Logger.info("{}: without /proc, reads are copied and FUA flushes the whole file", name);
    }
    if (opensAgain && writable) {
      syncer = opened(PosixFile.open(again, true, name).orElseThrow());
      durableWrites = Optional.of(opened(new DurableWrites(again, name, calls)));
    } else {
      syncer = file;
      durableWrites = Optional.empty();
    }
    traits = space.traits(durableWrites.isPresent());
  }

  private <T extends AutoCloseable> T opened(T opening) {
    open.add(opening);
    return opening;
  }

  private static Advice advice(AccessPattern pattern) {
    return switch (pattern) {
      case NORMAL -> Advice.NORMAL;
      case RANDOM -> Advice.RANDOM;
      case SEQUENTIAL -> Advice.SEQUENTIAL;
    };
  }

  @Override
  public Traits traits() {
    return traits;
  }

  @Override
  public long size() throws IOException {
    return space.size();
  }

  @Override
  public int read(ByteBuffer into, long offset) throws IOException {
    return file.read(into, offset);
  }

  @Override
  public CachedReads cachedReads() {
    return new PageCache(file, channel);
  }

  @Override
  public void write(ByteBuffer from, long offset) throws IOException {
    file.write(from, offset);
  }

  @Override
  public boolean writeDurably(ByteBuffer from, long offset) throws IOException {
    return durableWrites.isPresent() && durableWrites.get().write(from, offset);
  }

  @Override
  public void sync() throws IOException {
    syncer.sync();
  }

  @Override
  public void discard(long offset, long length) throws IOException {
    space.discard(offset, length);
  }

  @Override
  public boolean zero(long offset, long length, boolean mayPunch, boolean mustBeFast)
      throws IOException {
    return space.zero(offset, length, mayPunch, mustBeFast);
  }

  @Override
  public OptionalLong nextData(long offset) throws IOException {
    return file.nextData(offset);
  }

  @Override
  public OptionalLong nextHole(long offset) throws IOException {
    return file.nextHole(offset);
  }

  @Override
  public void readAhead(long offset, long length) {
    file.advise(offset, length, Advice.WILLNEED);
  }

  @Override
  public void startWriting(long offset, long length) throws IOException {
    file.startWriting(offset, length);
  }

  @Override
  public void finishWriting(long offset, long length) throws IOException {
    file.finishWriting(offset, length);
  }

  @Override
  public void dropCached(long offset, long length) {
    file.advise(offset, length, Advice.DONTNEED);
  }

  @Override
  public void close() {
    close(open);
  }

  /** Closes them, the latest first. A failure loses nothing that {@link #sync} has not reported. */
  private static void close(List<AutoCloseable> open) {
    for (AutoCloseable each : open.reversed()) {
      try {
        each.close();
      } catch (Exception failure) {
        Logger.debug(failure);
      }
    }
  }

  /** One handle's reads of the page cache. */
  private static final class PageCache implements CachedReads {
    private final PosixFile file;
    private final Optional<FileChannel> channel;
    private final PosixFile.Query query = new PosixFile.Query(Arena.ofAuto());

    PageCache(PosixFile file, Optional<FileChannel> channel) {
      this.file = file;
      this.channel = channel;
    }

    @Override
    public boolean read(ByteBuffer into, long offset) {
      return file.readCached(query, into, offset);
    }

    @Override
    public boolean has(long offset, long length) {
      return channel.isPresent() && file.isCached(query, offset, length);
    }

    @Override
    public long transfer(long offset, long length, WritableByteChannel to) throws IOException {
      return channel.isPresent() ? channel.get().transferTo(offset, length, to) : 0;
    }
  }
}
