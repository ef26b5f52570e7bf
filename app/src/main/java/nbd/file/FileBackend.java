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
import java.util.concurrent.atomic.AtomicReference;
import nbd.file.FileSettings.CacheAdvice;
import nbd.posix.Errno;
import nbd.posix.PosixException;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.ThreadModel;
import nbd.threads.BlockingCalls;
import nbd.threads.SharedRuns;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * An image file or block device. It is opened once, when the server starts: all handles share that
 * opening and with it one page cache, whatever happens to the name later, and so a flush on any of
 * them covers all of them.
 *
 * <p><b>A loss is for ever.</b> The kernel reports a lost write once and then takes the page for
 * clean, so that a later fdatasync succeeds without it. From the first report on, every flush and
 * every write with FUA fails here. No report is missed, since each opening of a file gets every
 * report, once: one opening serves nothing but flushes, one at a time, and each write with FUA has
 * an opening to itself while it runs ({@link DurableWrites}).
 */
public final class FileBackend implements Backend {
  private final String name;
  private final OpenFile file;
  private final boolean readOnly;
  private final BlockingCalls blocking;
  private final Eviction eviction;

  private final SharedRuns syncs = new SharedRuns(this::sync);

  /** The report where there is no memory for a better one. */
  private final NbdException unexplained;

  /** The first report of a loss, which is never taken back; null if there is none. */
  private final AtomicReference<@Nullable NbdException> lost = new AtomicReference<>();

  /** Serves an open file; tests give it a disk that fails or loses power. */
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
    this.eviction = new Eviction(file, settings.cacheAdvice() == CacheAdvice.NONE);
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
    try {
      FileKind kind = FileKind.of(path);
      if (kind == FileKind.DIRECTORY) {
        throw new IOException(
            name + " is a directory; name an image file or a block device, or write dir:" + name);
      }
      if (kind == FileKind.OTHER) {
        throw new IOException(name + " is neither a file nor a block device");
      }
      boolean isDevice = kind == FileKind.BLOCK_DEVICE;
      if (!settings.readOnly()) {
        try {
          return open(path, name, settings, isDevice);
        } catch (PosixException | AccessDeniedException refused) {
          if (!isWriteRefused(refused)) {
            throw refused;
          }
          Logger.info("{} cannot be written ({}): served read-only", name, why(refused));
        }
      }
      return open(path, name, settings.readOnly(true), isDevice);
    } catch (NoSuchFileException missing) {
      throw new IOException(name + " does not exist", missing);
    } catch (PosixException | AccessDeniedException failure) {
      throw new IOException(name + " cannot be opened: " + why(failure), failure);
    }
  }

  private static boolean isWriteRefused(IOException failure) {
    return !(failure instanceof PosixException known)
        || switch (known.errno()) {
          case EACCES, EPERM, EROFS -> true;
          default -> false;
        };
  }

  private static String why(IOException failure) {
    return failure instanceof PosixException known && known.errno() != Errno.EACCES
        ? known.errnoName()
        : "permission denied";
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

  /**
   * Opens a handle.
   *
   * @param afterClose run when the handle is closed
   */
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

  /** The first half of {@link #close}; if it throws, something is lost. */
  void flushBeforeClose() throws IOException {
    if (!readOnly) {
      flush();
    }
  }

  /** The second half: closes the file. */
  void release() throws IOException {
    try (blocking) {
      blocking.run(
          () -> {
            try (file) {
              eviction.end();
            }
          });
    }
  }

  OpenFile file() {
    return file;
  }

  BlockingCalls blocking() {
    return blocking;
  }

  Eviction eviction() {
    return eviction;
  }

  /**
   * Makes all completed writes durable. Callers that come while a sync runs share the next.
   *
   * @throws IOException if a write is lost
   */
  void flush() throws IOException {
    syncs.run();
    throwIfLost();
    if (eviction.isOn()) {
      blocking.run(eviction::flushed);
    }
  }

  /**
   * Syncs, unless a loss is known.
   *
   * @throws IOException if the sync could not begin, which loses nothing
   */
  private void sync() throws IOException {
    if (lost.get() != null) {
      return;
    }
    boolean[] asked = {false};
    try {
      blocking.run(
          () -> {
            asked[0] = true;
            file.sync();
          });
    } catch (IOException | RuntimeException | Error failed) {
      if (!asked[0]) {
        throw failed;
      }
      lose("a flush failed", failed);
    }
  }

  /**
   * Writes, and returns when the data is durable. Not called by a thread of {@link #blocking},
   * since it may wait for a sync that needs one.
   *
   * <p>A failure is taken for a loss, but for want of space: then a flush finds out, to which every
   * loss is reported too.
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
      lose("a write with FUA failed", failure);
    }
    if (!durable) {
      flush();
    }
    throwIfLost();
  }

  /** Remembers a loss, also if there is no memory for a report of it. */
  private void lose(String how, Throwable failure) {
    if (lost.compareAndSet(null, unexplained)) {
      IOException known = failure instanceof IOException io ? io : new IOException(failure);
      String what = how + ", what was written before it may be lost: ";
      lost.set(
          new NbdException(
              errorOf(known), name + ": " + what + known.getMessage(), what + told(known), known));
    }
  }

  private void throwIfLost() throws NbdException {
    NbdException report = lost.get();
    if (report != null) {
      throw NbdException.copyOf(report);
    }
  }

  private static String told(IOException failure) {
    return failure instanceof PosixException known
        ? known.errnoName()
        : NbdException.messageForClient(failure);
  }

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

  /** The failure with its error in the protocol; the same one where that is EIO. */
  static IOException withProtocolError(IOException failure) {
    NbdError error = errorOf(failure);
    if (error == NbdError.EIO || failure instanceof NbdException) {
      return failure;
    }
    return new NbdException(error, String.valueOf(failure.getMessage()), told(failure), failure);
  }
}
