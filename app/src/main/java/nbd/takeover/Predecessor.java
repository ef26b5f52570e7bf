package nbd.takeover;

import java.io.IOException;

/** A server with whose clients, listening sockets and locked images this one goes on. */
public interface Predecessor extends AutoCloseable {
  /** Returns what was handed over; {@link #close} closes those descriptors nobody has released. */
  Handover handover();

  /** Says whether it goes on itself if this server does not take over. */
  boolean mayGoOn();

  /** Tells it why nothing is taken. */
  void refuse(String why);

  /**
   * Takes everything: returns when the other server has closed its storage, or is gone.
   *
   * @throws RefusedException if the other server goes on, since this one was not ready in time
   */
  void take() throws IOException;

  @Override
  void close() throws IOException;
}
