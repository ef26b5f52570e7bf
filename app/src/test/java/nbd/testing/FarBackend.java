package nbd.testing;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.locks.ReentrantLock;
import nbd.filter.FilterBackend;
import nbd.filter.FilterHandle;
import nbd.protocol.Command;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import org.jspecify.annotations.Nullable;

/**
 * Storage that begins reads and writes, and ends them later: nothing happens before they are
 * pushed, and then they end in any order, on other threads, unless a test holds the ends back. A
 * read or write that waits instead fails the test, unless {@link #takingAll} made the storage.
 */
public final class FarBackend extends FilterBackend {
  private final Random random;
  private final boolean onlyBegins;
  private final ReentrantLock lock = new ReentrantLock();
  private final List<Runnable> held = new ArrayList<>();
  private boolean holding;
  private @Nullable IOException failure;

  /** Wraps the storage that does the work; the seed decides the order of the ends. */
  public FarBackend(Backend near, long seed) {
    this(near, seed, true);
  }

  private FarBackend(Backend near, long seed, boolean onlyBegins) {
    super(near);
    this.random = new Random(seed);
    this.onlyBegins = onlyBegins;
  }

  /** Wraps storage, and passes on reads and writes that wait. */
  public static FarBackend takingAll(Backend near) {
    return new FarBackend(near, 1, false);
  }

  /** Holds all ends back from now on. */
  public void hold() {
    lock.lock();
    try {
      holding = true;
    } finally {
      lock.unlock();
    }
  }

  /** Returns the number of ends that are held back. */
  public int held() {
    lock.lock();
    try {
      return held.size();
    } finally {
      lock.unlock();
    }
  }

  /** Runs the ends that are held back, and holds none from now on. */
  public void release() {
    List<Runnable> released;
    lock.lock();
    try {
      holding = false;
      released = List.copyOf(held);
      held.clear();
    } finally {
      lock.unlock();
    }
    released.forEach(Runnable::run);
  }

  /** Fails all begun calls from now on. */
  public void fail(IOException with) {
    lock.lock();
    try {
      failure = with;
    } finally {
      lock.unlock();
    }
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    return new FarHandle(next.open(exportName, readOnly));
  }

  private void end(List<Runnable> pushed) {
    lock.lock();
    try {
      java.util.Collections.shuffle(pushed, random);
      if (holding) {
        held.addAll(pushed);
        return;
      }
    } finally {
      lock.unlock();
    }
    int half = pushed.size() / 2;
    Thread.ofVirtual().start(() -> pushed.subList(0, half).forEach(Runnable::run));
    Thread.ofVirtual().start(() -> pushed.subList(half, pushed.size()).forEach(Runnable::run));
  }

  private final class FarHandle extends FilterHandle {
    /** The operations begun and not yet pushed; guarded by the monitor. */
    private List<Runnable> begun = new ArrayList<>();

    FarHandle(Handle next) {
      super(next);
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws IOException {
      boolean hasData = operation.command() == Command.READ || operation.command() == Command.WRITE;
      if (patience == Patience.WAIT) {
        assertThat(hasData && onlyBegins).as("%s is to be begun", operation.command()).isFalse();
        return next.perform(operation, patience, end);
      }
      if (patience == Patience.AT_ONCE || !hasData) {
        return Outcome.DECLINED;
      }
      synchronized (this) {
        begun.add(() -> end.done(outcome(operation)));
      }
      return Outcome.BEGUN;
    }

    private @Nullable IOException outcome(Operation operation) {
      if (failure != null) {
        return failure;
      }
      try {
        next.run(operation.copy());
        return null;
      } catch (IOException failed) {
        return failed;
      }
    }

    @Override
    public void push() {
      List<Runnable> pushed;
      synchronized (this) {
        pushed = begun;
        begun = new ArrayList<>();
      }
      end(pushed);
    }
  }
}
