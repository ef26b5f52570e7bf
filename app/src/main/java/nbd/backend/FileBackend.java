package nbd.backend;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.AccessDeniedException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.EnumSet;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;
import nbd.posix.PosixException;
import nbd.posix.PosixFile;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import org.jspecify.annotations.Nullable;

/**
 * An image file or block device. It is opened once, when the server starts: all handles share that
 * opening and with it one page cache, whatever happens to the name later, and so a flush on any of
 * them covers all of them.
 */
public final class FileBackend implements Backend {
  private final Path path;
  private final boolean readOnly;
  private final FileChannel channel;
  private final Optional<PosixFile> posix;
  private final BlockingCalls blocking;

  private final ReentrantLock flushing = new ReentrantLock();

  /** What the first flush that failed said; under {@link #flushing}. */
  private @Nullable String lost;

  private final SlowWrites slowWrites = new SlowWrites();

  /** Serves an opening of the file; tests give one that fails, or leave the system's calls out. */
  FileBackend(Path path, boolean readOnly, FileChannel channel, Optional<PosixFile> posix) {
    this.path = path;
    this.readOnly = readOnly;
    this.channel = channel;
    this.posix = posix;
    this.blocking = new BlockingCalls("file " + path.getFileName());
  }

  /**
   * Opens the file.
   *
   * @throws IOException with a message for the user if there is no such file, if it is a directory,
   *     or if it cannot be opened that way
   */
  public static FileBackend open(Path path, boolean readOnly) throws IOException {
    if (Files.isDirectory(path)) {
      throw new IOException(path + " is a directory; name an image file or a block device");
    }
    Optional<PosixFile> posix = Optional.empty();
    try {
      Set<StandardOpenOption> options = EnumSet.of(StandardOpenOption.READ);
      if (!readOnly) {
        options.add(StandardOpenOption.WRITE);
      }
      FileChannel channel = FileChannel.open(path, options);
      try {
        posix = PosixFile.open(path, !readOnly);
        return new FileBackend(path, readOnly, channel, posix);
      } catch (IOException | RuntimeException failure) {
        channel.close();
        throw failure;
      }
    } catch (NoSuchFileException missing) {
      throw new IOException(path + " does not exist", missing);
    } catch (AccessDeniedException denied) {
      throw new IOException(
          readOnly || !Files.isReadable(path)
              ? path + " may not be read"
              : path + " may not be written; serve it with --read-only",
          denied);
    } catch (IOException failure) {
      throw new IOException(path + " cannot be opened: " + reason(failure), failure);
    }
  }

  private static String reason(IOException failure) {
    String message = failure.getMessage();
    return message == null ? failure.getClass().getSimpleName() : message;
  }

  @Override
  public String name() {
    return "file " + path;
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Handle open(String exportName, boolean handleReadOnly) throws IOException {
    return new FileHandle(this, channel.size(), readOnly || handleReadOnly);
  }

  @Override
  public void close() throws IOException {
    try (channel;
        blocking) {
      if (!readOnly) {
        flush();
      }
      if (posix.isPresent()) {
        posix.get().close();
      }
    }
  }

  FileChannel channel() {
    return channel;
  }

  Optional<PosixFile> posix() {
    return posix;
  }

  BlockingCalls blocking() {
    return blocking;
  }

  SlowWrites slowWrites() {
    return slowWrites;
  }

  /**
   * Makes everything that was written durable.
   *
   * <p>A failure is for ever: the kernel reports a lost write once and then takes the page for
   * clean, so that a later success would say nothing of it. One flush at a time, since of two at
   * once on one opening only one gets the report, and the other could be answered before that one
   * has said so here.
   */
  void flush() throws IOException {
    flushing.lock();
    try {
      if (lost != null) {
        throw new IOException(lost);
      }
      try {
        blocking.run(() -> channel.force(false));
      } catch (IOException failure) {
        lost =
            path + ": a flush failed, what was written before it may be lost: " + reason(failure);
        throw new IOException(lost, failure);
      }
    } finally {
      flushing.unlock();
    }
  }

  /** The protocol's error for a failed call on this file. */
  static IOException withProtocolError(PosixException failure) {
    String message = failure.getMessage();
    return switch (failure.errno()) {
      case PosixFile.ENOSPC, PosixFile.EDQUOT, PosixFile.EFBIG ->
          new NbdException(NbdError.ENOSPC, message == null ? "no space" : message);
      default -> failure;
    };
  }
}
