package nbd.testing;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;

/** A hook that holds the first call: the test waits for it, and decides when it goes on. */
public final class Gate implements FakeBackend.Hook {
  private final CountDownLatch reached = new CountDownLatch(1);
  private final CountDownLatch opened = new CountDownLatch(1);
  private final AtomicBoolean met = new AtomicBoolean();

  @Override
  public void on(FakeBackend.Call call) {
    pass();
  }

  /** Waits until the gate is opened if this is the first call, and returns at once otherwise. */
  public void pass() {
    if (met.compareAndSet(false, true)) {
      reached.countDown();
      Eventually.await(opened);
    }
  }

  /** Waits until a call is held. */
  public void awaitReached() {
    Eventually.await(reached);
  }

  /** Lets the held call go on. */
  public void open() {
    opened.countDown();
  }
}
