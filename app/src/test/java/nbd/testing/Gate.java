package nbd.testing;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;

/** Holds the first call that comes: the test learns that it has come, and says when it goes on. */
public final class Gate implements FakeBackend.Hook {
  private final CountDownLatch reached = new CountDownLatch(1);
  private final CountDownLatch opened = new CountDownLatch(1);
  private final AtomicBoolean met = new AtomicBoolean();

  @Override
  public void on(FakeBackend.Call call) {
    pass();
  }

  /** Passes the gate: waits if this is the first time. */
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

  /** Lets the call go on. */
  public void open() {
    opened.countDown();
  }
}
