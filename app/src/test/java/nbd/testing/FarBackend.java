package nbd.testing;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.locks.ReentrantLock;
import nbd.filter.FilterBackend;
import nbd.filter.FilterHandle;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.Handle;
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

    /** A call of the next handle. */
    private interface Call {
      void run() throws IOException;
    }

    private boolean begin(Completion end, Call call) {
      begun.add(() -> end.done(outcome(call)));
      return true;
    }

    private @Nullable IOException outcome(Call call) {
      if (failure != null) {
        return failure;
      }
      try {
        call.run();
        return null;
      } catch (IOException failed) {
        return failed;
      }
    }

    @Override
    public boolean beginRead(ByteBuffer into, long offset, Completion end) {
      return begin(end, () -> next.read(into, offset));
    }

    @Override
    public boolean beginWrite(ByteBuffer from, long offset, CommandFlags flags, Completion end) {
      return begin(end, () -> next.write(from, offset, flags));
    }

    @Override
    public void push() {
      List<Runnable> pushed = begun;
      begun = new ArrayList<>();
      end(pushed);
    }

    @Override
    public boolean readNow(ByteBuffer into, long offset) {
      return false;
    }

    @Override
    public boolean writeNow(ByteBuffer from, long offset) {
      return false;
    }

    @Override
    public void read(ByteBuffer into, long offset) {
      throw new AssertionError("reads are to be begun");
    }

    @Override
    public void write(ByteBuffer from, long offset, CommandFlags flags) {
      throw new AssertionError("writes are to be begun");
    }
  }
}
