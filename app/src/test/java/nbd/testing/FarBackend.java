package nbd.testing;

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
 * Storage whose reads and writes can only be begun: nothing happens before they are pushed, and
 * then they end in any order, on other threads, until a test holds the ends back.
 */
public final class FarBackend extends FilterBackend {
  private final Random random;
  private final ReentrantLock lock = new ReentrantLock();
  private final List<Runnable> held = new ArrayList<>();
  private boolean holding;
  private @Nullable IOException failure;

  /** In front of what does the work. */
  public FarBackend(Backend near, long seed) {
    super(near);
    this.random = new Random(seed);
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

  /** How many ends are held back. */
  public int held() {
    lock.lock();
    try {
      return held.size();
    } finally {
      lock.unlock();
    }
  }

  /** Lets all ends go, now and later. */
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

  /** Lets all begun calls fail from now on. */
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
    /** Used by the thread that begins. */
    private List<Runnable> begun = new ArrayList<>();

    FarHandle(Handle next) {
      super(next);
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws IOException {
      boolean hasData = operation.command() == Command.READ || operation.command() == Command.WRITE;
      if (!hasData) {
        return patience == Patience.WAIT
            ? next.perform(operation, patience, end)
            : Outcome.DECLINED;
      }
      return switch (patience) {
        case AT_ONCE -> Outcome.DECLINED;
        case LATER -> {
          begun.add(() -> end.done(outcome(operation)));
          yield Outcome.BEGUN;
        }
        case WAIT -> throw new AssertionError(operation.command() + " is to be begun");
      };
    }

    private @Nullable IOException outcome(Operation operation) {
      if (failure != null) {
        return failure;
      }
      try {
        next.run(operation);
        return null;
      } catch (IOException failed) {
        return failed;
      }
    }

    @Override
    public void push() {
      List<Runnable> pushed = begun;
      begun = new ArrayList<>();
      end(pushed);
    }
  }
}
