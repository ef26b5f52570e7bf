package nbd.threads;

import java.util.ArrayDeque;
import java.util.Queue;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The work that a thread puts off while it takes messages that have arrived together, so that what
 * would follow each of them is done once for all of them.
 *
 * <p>Used by one thread, which runs the work before each time that it waits for messages, and
 * closes this when it takes no more of them. So no work waits for a message.
 */
public final class Postponed implements AutoCloseable {
  private static final ThreadLocal<@Nullable Postponed> OF_THREAD = new ThreadLocal<>();

  private final Queue<Runnable> work = new ArrayDeque<>();

  private Postponed() {}

  /** From now on this thread puts work off. Called once by a thread. */
  public static Postponed begin() {
    Postponed begun = new Postponed();
    OF_THREAD.set(begun);
    return begun;
  }

  /**
   * Puts work off, or does it at once on a thread that puts nothing off, and without memory.
   *
   * @param task never waits, and throws nothing
   */
  public static void add(Runnable task) {
    boolean added = false;
    try {
      Postponed here = OF_THREAD.get();
      added = here != null && here.work.add(task);
    } catch (OutOfMemoryError none) {
      // It is done now.
    }
    if (!added) {
      task.run();
    }
  }

  /** Does what was put off, also by what it does. */
  public void run() {
    Runnable task = work.poll();
    while (task != null) {
      run(task);
      task = work.poll();
    }
  }

  /** Does one task; others follow, whatever it throws. */
  private static void run(Runnable task) {
    try {
      task.run();
    } catch (RuntimeException | Error mistake) {
      try {
        Logger.error(mistake, "postponed work failed");
      } catch (RuntimeException | Error outOfMemory) {
        // The other tasks matter more than the message.
      }
    }
  }

  /** Does what was put off; the thread puts nothing off any more. */
  @Override
  public void close() {
    OF_THREAD.remove();
    run();
  }
}
