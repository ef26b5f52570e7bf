package nbd.file;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import nbd.posix.PosixFile;
import nbd.threads.BlockingCalls;
import nbd.threads.ShortCalls;
import org.tinylog.Logger;

/**
 * Writes single ranges through to the disk (O_DSYNC, which is RWF_DSYNC for each write), while the
 * rest of what is dirty stays where it is.
 *
 * <p>By the JDK's channels, since a virtual thread may wait in these: the JDK adds a carrier
 * meanwhile, as it does for no other write. By a platform thread of {@link BlockingCalls} each
 * write takes two ways between threads more, which cost as much as the write on a fast disk.
 *
 * <p>Each write has an opening of the file to itself meanwhile. The kernel tells every opening once
 * that something was lost; of two writes on one opening, the one whose data was written could be
 * told, and the one whose data was lost be answered with success. There are at most {@link #MOST}
 * writes at a time, others wait for their turn; and an opening that nobody has used for {@link
 * #IDLE} is closed.
 *
 * <p>Invariant, under the lock: an opening is idle here, in the hands of exactly one write, or
 * being closed. The idle ones are in the order of their last use, the newest first; while there are
 * any, a look at them is due.
 */
final class DurableWrites implements AutoCloseable {
  /** Half of a file's threads, so that what hangs here keeps nobody from reading. */
  static final int MOST = 32;

  /** How long an opening is kept for the next write. */
  static final Duration IDLE = Duration.ofSeconds(1);

  private final Path path;
  private final String name;
  private final BlockingCalls calls;
  private final Semaphore turns = new Semaphore(MOST);
  private final ReentrantLock lock = new ReentrantLock();
  private final ArrayDeque<Idle> idle = new ArrayDeque<>();
  private boolean lookIsDue;

  /** Runs a look at the idle openings, {@link #IDLE} from now. */
  private final Executor later;

  private record Idle(FileChannel file, long since) {}

  /**
   * Opens nothing yet.
   *
   * @param path that leads to the same file for certain
   */
  DurableWrites(Path path, String name, BlockingCalls calls) {
    this(
        path,
        name,
        calls,
        CompletableFuture.delayedExecutor(IDLE.toMillis(), TimeUnit.MILLISECONDS, calls.threads()));
  }

  /** Looks at the idle openings when a test says so. */
  DurableWrites(Path path, String name, BlockingCalls calls, Executor later) {
    this.path = path;
    this.name = name;
    this.calls = calls;
    this.later = later;
  }

  /** As {@link OpenFile#writeDurably}. */
  boolean write(ByteBuffer from, long offset) throws IOException {
    turns.acquireUninterruptibly();
    try {
      Optional<FileChannel> taken = take();
      if (taken.isEmpty()) {
        return false;
      }
      try {
        write(taken.get(), from, offset);
        return true;
      } finally {
        giveBack(taken.get());
      }
    } finally {
      turns.release();
    }
  }

  private void write(FileChannel file, ByteBuffer from, long offset) throws IOException {
    ShortCalls here = calls.durableWrites();
    int begun = here.begin();
    if (begun == ShortCalls.REFUSED) {
      calls.run(
          () -> {
            long start = System.nanoTime();
            writeAll(file, from, offset);
            calls.wroteDurably(System.nanoTime() - start);
          });
      return;
    }
    try {
      writeAll(file, from, offset);
    } finally {
      here.end(begun);
    }
  }

  private void writeAll(FileChannel file, ByteBuffer from, long offset) throws IOException {
    ByteBuffer whole = from.duplicate();
    long at = offset;
    try {
      while (from.hasRemaining()) {
        at += file.write(from, at);
      }
    } catch (IOException failure) {
      findReason(whole, offset, failure);
      throw failure;
    }
  }

  /** Channels do not tell the error's number: what failed is tried again by the call that does. */
  private void findReason(ByteBuffer whole, long offset, IOException failure) throws IOException {
    Optional<PosixFile> opened;
    try {
      opened = PosixFile.open(path, true, name);
    } catch (IOException noReason) {
      failure.addSuppressed(noReason);
      return;
    }
    if (opened.isPresent()) {
      try (PosixFile file = opened.get()) {
        file.writeDurably(whole, offset);
      }
    }
  }

  /** An idle opening, or a new one; none if there can be none, for want of descriptors mostly. */
  private Optional<FileChannel> take() throws IOException {
    lock.lock();
    try {
      Idle free = idle.poll();
      if (free != null) {
        return Optional.of(free.file);
      }
    } finally {
      lock.unlock();
    }
    try {
      return Optional.of(
          calls.ask(
              () -> FileChannel.open(path, StandardOpenOption.WRITE, StandardOpenOption.DSYNC)));
    } catch (BlockingCalls.NotMadeException noThread) {
      throw noThread;
    } catch (IOException refused) {
      Logger.debug("{}: cannot be opened once more: {}", name, refused.getMessage());
      return Optional.empty();
    }
  }

  private void giveBack(FileChannel file) {
    lock.lock();
    try {
      idle.push(new Idle(file, System.nanoTime()));
      lookLater();
    } finally {
      lock.unlock();
    }
  }

  /** Under the lock. Where there is no thread for the look, the next write asks for it again. */
  private void lookLater() {
    if (!lookIsDue && !idle.isEmpty()) {
      lookIsDue = true;
      try {
        later.execute(this::closeUnused);
      } catch (OutOfMemoryError noThread) {
        lookIsDue = false;
        Logger.debug("{}: openings stay open: {}", name, noThread.getMessage());
      }
    }
  }

  private void closeUnused() {
    List<Idle> unused = new ArrayList<>();
    long now = System.nanoTime();
    lock.lock();
    try {
      while (!idle.isEmpty() && now - idle.getLast().since >= IDLE.toNanos()) {
        unused.add(idle.removeLast());
      }
      lookIsDue = false;
      lookLater();
    } finally {
      lock.unlock();
    }
    unused.forEach(this::close);
  }

  /** Called when no write runs. */
  @Override
  public void close() {
    lock.lock();
    try {
      idle.forEach(this::close);
      idle.clear();
    } finally {
      lock.unlock();
    }
  }

  private void close(Idle unused) {
    try {
      unused.file.close();
    } catch (IOException failure) {
      Logger.debug("{}: {}", name, failure.getMessage());
    }
  }
}
