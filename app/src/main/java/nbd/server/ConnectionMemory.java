package nbd.server;

import java.util.concurrent.Semaphore;

/** Where one connection's requests get their memory. */
final class ConnectionMemory {
  private final ServerMemory server;
  private final Runnable cut;

  /** What is left of the connection's own memory, in bytes; taken by one thread, see below. */
  private final Semaphore own = new Semaphore(ServerMemory.OWN_BYTES);

  /**
   * Gives out memory to one connection's thread.
   *
   * @param cut ends the connection if its client holds others up; any thread calls it
   */
  ConnectionMemory(ServerMemory server, Runnable cut) {
    this.server = server;
    this.cut = cut;
  }

  /** For a request that needs none yet. */
  RequestMemory forRequest() {
    return new RequestMemory(this);
  }

  ServerMemory server() {
    return server;
  }

  Semaphore own() {
    return own;
  }

  Runnable cut() {
    return cut;
  }
}
