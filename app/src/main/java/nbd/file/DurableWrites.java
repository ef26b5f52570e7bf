package nbd.file;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
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
import org.tinylog.Logger;

/**
 * Writes of single ranges through to the disk, while the other dirty pages stay dirty.
 *
 * <p>Each write has an opening of the file to itself while it runs. The kernel reports a loss once
 * to each opening: of two writes on the same one, the loss of one could be reported to the other.
 * At most {@link #MOST} writes run at a time; and an opening that no write has used for {@link
 * #IDLE} is closed.
 *
 * <p>Invariant, under the lock: an opening is idle, or used by exactly one write, or being closed.
 * The idle ones are in the order of their last use, the newest first; while there are any, a look
 * at them is due, unless no thread could be started for it.
 */
final class DurableWrites implements AutoCloseable {
  /** Half of a file's threads, so that writes that hang leave threads to reads. */
  static final int MOST = 32;

  /** The time that an opening is kept for the next write. */
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

  private record Idle(PosixFile file, long since) {}

  /**
   * Opens nothing yet.
   *
   * @param path of the same file for certain
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

  /** Writes as {@link OpenFile#writeDurably} does. */
  boolean write(ByteBuffer from, long offset) throws IOException {
    turns.acquireUninterruptibly();
    try {
      Optional<PosixFile> taken = take();
      if (taken.isEmpty()) {
        return false;
      }
      try {
        calls.run(() -> taken.get().writeDurably(from, offset));
        return true;
      } finally {
        giveBack(taken.get());
      }
    } finally {
      turns.release();
    }
  }

  /** Takes an idle opening, or a new one; none if it cannot be opened, as without descriptors. */
  private Optional<PosixFile> take() throws IOException {
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
      return Optional.of(calls.ask(() -> PosixFile.openDurable(path, name)));
    } catch (BlockingCalls.NotMadeException noThread) {
      throw noThread;
    } catch (IOException refused) {
      Logger.debug("{}: cannot be opened once more: {}", name, refused.getMessage());
      return Optional.empty();
    }
  }

  private void giveBack(PosixFile file) {
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
    unused.forEach(each -> each.file.close());
  }

  /** Called when no write runs. */
  @Override
  public void close() {
    lock.lock();
    try {
      idle.forEach(each -> each.file.close());
      idle.clear();
    } finally {
      lock.unlock();
    }
  }
}
