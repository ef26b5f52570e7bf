package nbd.threads;

import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The work that a thread puts off while it takes messages that have arrived together, so that what
 * would follow each of them is done once for all of them.
 *
 * <p>Used by one thread, which runs the work before each time that it waits for messages, and
 * closes this when it takes no more of them. So no work waits for a message.
 */
public final class Postponed implements AutoCloseable {
  private static final ThreadLocal<@Nullable Postponed> OF_THREAD = new ThreadLocal<>();

  private final List<Runnable> work = new ArrayList<>();

  private Postponed() {}

  /** Lets this thread, which does not do so yet, put work off from now on. */
  public static Postponed begin() {
    Postponed begun = new Postponed();
    OF_THREAD.set(begun);
    return begun;
  }

  /**
   * Puts work off, or does it at once on a thread that puts nothing off.
   *
   * @param task never waits, and throws nothing
   */
  public static void add(Runnable task) {
    Postponed here = OF_THREAD.get();
    if (here == null || !here.put(task)) {
      task.run();
    }
  }

  private boolean put(Runnable task) {
    try {
      return work.add(task);
    } catch (OutOfMemoryError full) {
      return false;
    }
  }

  /** Does what was put off. */
  public void run() {
    // A task may put off another one.
    for (int i = 0; i < work.size(); i++) {
      work.get(i).run();
    }
    work.clear();
  }

  /** Does what was put off; the thread puts nothing off any more. */
  @Override
  public void close() {
    OF_THREAD.remove();
    run();
  }
}
