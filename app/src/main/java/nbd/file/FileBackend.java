package nbd.file;

import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.AccessDeniedException;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.EnumSet;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import nbd.file.FileSettings.CacheAdvice;
import nbd.posix.Errno;
import nbd.posix.PosixException;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.ThreadModel;
import nbd.threads.BlockingCalls;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * An image file or block device. It is opened once, when the server starts: all handles share that
 * opening and with it one page cache, whatever happens to the name later, and so a flush on any of
 * them covers all of them.
 *
 * <p><b>A loss is for ever.</b> The kernel reports a lost write once and then takes the page for
 * clean, so that a later success would say nothing of it. From the first report on, every flush and
 * every write with FUA fails. Reports cannot be missed: each opening of a file gets every report,
 * once; one opening serves nothing but flushes, one at a time, and each write with FUA that runs
 * has one to itself ({@link DurableWrites}).
 */
public final class FileBackend implements Backend {
  private final String name;
  private final OpenFile file;
  private final boolean readOnly;
  private final BlockingCalls blocking;
  private final Optional<Eviction> eviction;

  private final ReentrantLock flushing = new ReentrantLock();
  private final Condition flushed = flushing.newCondition();

  /** How many syncs have begun, and the latest that has succeeded; under {@link #flushing}. */
  private long begun;

  private long succeeded;
  private boolean running;

  private final NbdException unexplained;

  /** The first report of a loss; set under {@link #flushing}, and never taken back. */
  private volatile @Nullable NbdException lost;

  /** Serves what has been opened; tests give it a disk that fails or loses power. */
  FileBackend(String name, OpenFile file, FileSettings settings) {
    this(name, file, settings, callsOf(name));
  }

  private FileBackend(String name, OpenFile file, FileSettings settings, BlockingCalls blocking) {
    this.name = name;
    this.file = file;
    this.readOnly = settings.readOnly();
    this.blocking = blocking;
    this.unexplained =
        new NbdException(NbdError.EIO, name + ": what was written may be lost", "a write is lost");
    this.eviction =
        settings.cacheAdvice() == CacheAdvice.NONE
            ? Optional.of(new Eviction(file))
            : Optional.empty();
  }

  private static BlockingCalls callsOf(String name) {
    return BlockingCalls.ofFile("file " + name);
  }

  /**
   * Opens the file: read-only if it cannot be written, which is logged.
   *
   * @throws IOException with a message for the user if there is no such file, if it is a directory
   *     or a pipe, if another program has locked it, or if it cannot be opened that way
   */
  public static FileBackend open(Path path, FileSettings settings) throws IOException {
    return open(path, path.toString(), settings);
  }

  /**
   * Opens the file.
   *
   * @param path by which it is found
   * @param name for messages
   */
  static FileBackend open(Path path, String name, FileSettings settings) throws IOException {
    boolean isDevice;
    try {
      FileKind kind = FileKind.of(path);
      if (kind == FileKind.DIRECTORY) {
        throw new IOException(
            name + " is a directory; name an image file or a block device, or write dir:" + name);
      }
      if (kind == FileKind.OTHER) {
        throw new IOException(name + " is neither a file nor a block device");
      }
      isDevice = kind == FileKind.BLOCK_DEVICE;
    } catch (NoSuchFileException missing) {
      throw new IOException(name + " does not exist", missing);
    } catch (AccessDeniedException denied) {
      throw new IOException(name + " cannot be reached: permission denied", denied);
    }
    if (!settings.readOnly()) {
      try {
        return open(path, name, settings, isDevice);
      } catch (PosixException refused) {
        if (!isWriteRefused(refused)) {
          throw unopened(name, refused);
        }
        Logger.info("{} cannot be written ({}): served read-only", name, refused.errnoName());
      } catch (AccessDeniedException refused) {
        Logger.info("{} cannot be written (permission denied): served read-only", name);
      }
    }
    FileSettings reading = settings.readOnly(true);
    try {
      return open(path, name, reading, isDevice);
    } catch (PosixException refused) {
      throw refused.errno() == Errno.EACCES
          ? new IOException(name + " cannot be opened: permission denied", refused)
          : unopened(name, refused);
    } catch (AccessDeniedException denied) {
      throw new IOException(name + " cannot be opened: permission denied", denied);
    }
  }

  private static boolean isWriteRefused(PosixException failure) {
    return switch (failure.errno()) {
      case EACCES, EPERM, EROFS -> true;
      default -> false;
    };
  }

  private static IOException unopened(String name, PosixException failure) {
    return new IOException(name + " cannot be opened: " + failure.errnoName(), failure);
  }

  private static FileBackend open(Path path, String name, FileSettings settings, boolean isDevice)
      throws IOException {
    BlockingCalls calls = callsOf(name);
    Optional<OpenFile> system = SystemFile.open(path, name, settings, isDevice, calls);
    if (system.isPresent()) {
      return new FileBackend(name, system.get(), settings, calls);
    }
    Set<StandardOpenOption> options = EnumSet.of(StandardOpenOption.READ);
    if (!settings.readOnly()) {
      options.add(StandardOpenOption.WRITE);
    }
    OpenFile opened = new ChannelFile(FileChannel.open(path, options));
    return new FileBackend(name, opened, settings, calls);
  }

  private static String reason(IOException failure) {
    String message = failure.getMessage();
    return message == null ? failure.getClass().getSimpleName() : message;
  }

  private static String told(IOException failure) {
    return failure instanceof PosixException known ? known.errnoName() : NbdException.told(failure);
  }

  @Override
  public String name() {
    return "file " + name;
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Handle open(String exportName, boolean handleReadOnly) throws IOException {
    return open(handleReadOnly, () -> {});
  }

  /** Opens a handle, at whose end something is to be done. */
  Handle open(boolean handleReadOnly, Closeable afterClose) throws IOException {
    long size = blocking.ask(file::size);
    return new FileHandle(this, size, readOnly || handleReadOnly, afterClose);
  }

  @Override
  public void close() throws IOException {
    try {
      flushBeforeClose();
    } finally {
      release();
    }
  }

  /** The first half of {@link #close}, after which {@link #isIntact} tells how it went. */
  void flushBeforeClose() throws IOException {
    if (!readOnly) {
      flush();
    }
  }

  /** The second half. */
  void release() throws IOException {
    try (blocking) {
      blocking.run(
          () -> {
            try (file) {
              if (eviction.isPresent()) {
                eviction.get().end();
              }
            }
          });
    }
  }

  /** Whether nothing that was written is known to be lost. */
  boolean isIntact() {
    return lost == null;
  }

  OpenFile file() {
    return file;
  }

  BlockingCalls blocking() {
    return blocking;
  }

  Optional<Eviction> eviction() {
    return eviction;
  }

  /**
   * Makes everything that was written durable. Callers that come while a sync runs share the next.
   *
   * @throws IOException if something is lost
   */
  void flush() throws IOException {
    flushing.lock();
    try {
      long needed = begun + 1;
      while (succeeded < needed && lost == null) {
        if (running) {
          flushed.awaitUninterruptibly();
        } else {
          sync();
        }
      }
      throwIfLost();
    } finally {
      flushing.unlock();
    }
    if (eviction.isPresent()) {
      blocking.run(eviction.get()::flushed);
    }
  }

  /**
   * Syncs without the lock; with it before and afterwards.
   *
   * @throws IOException if the sync could not begin, which loses nothing
   */
  private void sync() throws IOException {
    running = true;
    long mine = ++begun;
    flushing.unlock();
    boolean[] asked = {false};
    @Nullable Throwable failure = null;
    try {
      blocking.run(
          () -> {
            asked[0] = true;
            file.sync();
          });
    } catch (IOException | RuntimeException | Error failed) {
      failure = failed;
      if (!asked[0]) {
        throw failed;
      }
    } finally {
      flushing.lock();
      running = false;
      flushed.signalAll();
      if (failure == null) {
        succeeded = mine;
      } else if (asked[0]) {
        lose("a flush failed", failure);
      }
    }
  }

  /**
   * Writes, and returns when that is durable. Not called by a thread that {@link #blocking} has
   * lent: it may wait for a sync that needs one.
   *
   * <p>When it fails for want of space, nothing may have been lost: then a flush tells, which every
   * loss is reported to, too. Any other failure is taken for one.
   *
   * @param from a direct buffer
   */
  void writeDurably(ByteBuffer from, long offset) throws IOException {
    throwIfLost();
    boolean durable = false;
    try {
      durable = file.writeDurably(from, offset);
      if (!durable) {
        blocking.run(() -> file.write(from, offset));
      }
    } catch (BlockingCalls.NotMadeException unmade) {
      throw unmade;
    } catch (IOException failure) {
      if (errorOf(failure) == NbdError.ENOSPC) {
        flush();
        throw failure;
      }
      flushing.lock();
      try {
        lose("a write with FUA failed", failure);
      } finally {
        flushing.unlock();
      }
    }
    if (!durable) {
      flush();
    }
    throwIfLost();
  }

  /** Remembers a loss, under the lock; also if there is no memory for a report of it. */
  private void lose(String how, Throwable failure) {
    if (lost == null) {
      lost = unexplained;
      IOException known = failure instanceof IOException io ? io : new IOException(failure);
      String what = how + ", what was written before it may be lost: ";
      lost =
          new NbdException(
              errorOf(known), name + ": " + what + reason(known), what + told(known), known);
    }
  }

  private void throwIfLost() throws NbdException {
    NbdException report = lost;
    if (report != null) {
      throw NbdException.copyOf(report);
    }
  }

  /** The protocol's error for a failed call on a file. */
  private static NbdError errorOf(IOException failure) {
    if (!(failure instanceof PosixException known)) {
      return NbdException.errorOf(failure);
    }
    return switch (known.errno()) {
      case ENOSPC, EDQUOT, EFBIG -> NbdError.ENOSPC;
      case EROFS, EPERM -> NbdError.EPERM;
      case ENOMEM -> NbdError.ENOMEM;
      default -> NbdError.EIO;
    };
  }

  /** A failure as the protocol counts. */
  static IOException withProtocolError(IOException failure) {
    NbdError error = errorOf(failure);
    if (error == NbdError.EIO || failure instanceof NbdException) {
      return failure;
    }
    return new NbdException(error, reason(failure), told(failure), failure);
  }
}
