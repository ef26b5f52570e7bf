package nbd.server;

/**
 * A client's use of an export, by one connection after the other: a client whose connection has
 * paused keeps its seat for the next one. Any thread may call.
 *
 * <p>Invariant, guarded by the monitor: the holder has been told the strongest of all wishes so far
 * that the client goes.
 */
final class Seat implements Export.Client {
  private Export.Client holder = Export.Client.ENDS_BY_ITSELF;
  private boolean stopped;
  private boolean closed;

  /** Gives the seat to a connection, which is ended if that was wanted before. */
  synchronized void give(Export.Client next) {
    holder = next;
    if (closed) {
      next.close();
    } else if (stopped) {
      next.stop();
    }
  }

  @Override
  public synchronized void stop() {
    stopped = true;
    holder.stop();
  }

  @Override
  public synchronized void close() {
    closed = true;
    holder.close();
  }
}
