package nbd.threads;

import java.io.IOException;
import java.util.Objects;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.NbdException;
import nbd.threads.BlockingCalls.Call;
import nbd.threads.BlockingCalls.NotMadeException;
import org.jspecify.annotations.Nullable;

/**
 * Work of which each caller needs a run that begins after its call, such as a flush: the callers
 * that come while one runs share the next run, and its failure. One of them makes it.
 *
 * <p>Invariant, guarded by the lock: runs are numbered as they begin, and one at most is under way.
 */
public final class SharedRuns {
  private final Call work;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private boolean running;

  /** The newest run that has begun, that has ended, and that has succeeded. */
  private long begun;

  private long ended;
  private long succeeded;

  /** The failure of the newest run that has failed. */
  private @Nullable IOException failure;

  /** Shares the runs of this work. */
  public SharedRuns(Call work) {
    this.work = work;
  }

  /**
   * Waits for a run that begins after this call, and makes it if no other caller does.
   *
   * @throws IOException if the run failed, and none has succeeded since
   */
  public void run() throws IOException {
    lock.lock();
    try {
      long needed = begun + 1;
      while (ended < needed) {
        if (running) {
          changed.awaitUninterruptibly();
        } else {
          lead();
        }
      }
      if (succeeded < needed) {
        throw NbdException.copyOf(Objects.requireNonNull(failure));
      }
    } finally {
      lock.unlock();
    }
  }

  /**
   * Makes a run without the lock; with it before and afterwards.
   *
   * @throws NotMadeException if there was no thread for it; this run is as if it had not begun, and
   *     another caller makes the next one
   */
  private void lead() throws NotMadeException {
    running = true;
    long mine = ++begun;
    lock.unlock();
    IOException failed = null;
    boolean made = true;
    try {
      work.run();
    } catch (NotMadeException unmade) {
      made = false;
      throw unmade;
    } catch (IOException met) {
      failed = met;
    } catch (RuntimeException | Error mistake) {
      failed = new IOException("it failed by a mistake: " + mistake, mistake);
    } finally {
      lock.lock();
      running = false;
      if (made) {
        ended = mine;
        succeeded = failed == null ? mine : succeeded;
        failure = failed == null ? failure : failed;
      }
      changed.signalAll();
    }
  }
}
