package nbd.threads;

import java.util.concurrent.FutureTask;

/**
 * The call that waits for storage and answers a request.
 *
 * @param call runs once
 * @param isAlone whether no other request of the client is here, but for reads whose data is
 *     fetched meanwhile, so that the same thread may serve them afterwards
 */
public record WaitingCall(Runnable call, boolean isAlone) {
  /** Runs it on a virtual thread, or on this one if none can be started. */
  void startVirtual() {
    FutureTask<Boolean> once = new FutureTask<>(call, true);
    try {
      Thread.ofVirtual().start(once);
    } catch (OutOfMemoryError noThread) {
      // The JDK may have queued it.
      once.run();
    }
  }
}
