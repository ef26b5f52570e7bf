package nbd.takeover;

import java.io.IOException;
import java.time.Duration;
import nbd.posix.FilePassing;

/**
 * A server that has ended, and left what it hands over in a store, where the next one finds it: the
 * messages HELLO to END of a take-over. Used by one platform thread.
 */
public final class StoredServer implements Predecessor {
  /** The version of what is stored. */
  public static final int VERSION = Exchange.VERSION;

  private final Exchange exchange;
  private final Handover handover;
  private final Runnable taken;

  /**
   * Reads what the other server has left.
   *
   * @param store where it is; owned from now on
   * @param taken called when the store need not keep it any more
   * @throws IOException if it is not whole; the store is closed then
   */
  public StoredServer(FilePassing store, Runnable taken) throws IOException {
    this.exchange = new Exchange(store);
    this.taken = taken;
    boolean received = false;
    try {
      this.handover = exchange.receive(Duration.ZERO);
      received = true;
    } finally {
      if (!received) {
        store.close();
      }
    }
  }

  /**
   * Leaves a server that has stopped serving in a store.
   *
   * @param all what it hands over; stays the caller's
   * @param store stays the caller's
   */
  public static void leave(Handover all, FilePassing store) throws IOException {
    new Exchange(store).send(all, Duration.ZERO);
  }

  @Override
  public Handover handover() {
    return handover;
  }

  @Override
  public boolean mayGoOn() {
    return false;
  }

  /** Does nothing: nobody is there, and another start may still take it. */
  @Override
  public void refuse(String why) {}

  @Override
  public void take() {
    taken.run();
  }

  @Override
  public void close() {
    handover.close();
    exchange.close();
  }
}
