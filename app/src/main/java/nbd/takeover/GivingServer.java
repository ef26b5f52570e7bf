package nbd.takeover;

import java.io.EOFException;
import java.io.IOException;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import nbd.posix.PassingSocket;
import nbd.posix.UnixPeer;
import org.tinylog.Logger;

/**
 * The side of a take-over that hands over. If the new server is not ready in time, is gone or
 * refuses, this one goes on as if nothing had been.
 */
public final class GivingServer {
  /** The request by which a new server asks, and the version of the messages behind it. */
  public static final String REQUEST = "take-over";

  /** The time that the new server has to take GO; if it does not, it is gone. */
  private static final Duration GO_PATIENCE = Duration.ofSeconds(10);

  /** The same for REFUSED; if it does not read, it has not said that it is ready. */
  private static final Duration REFUSAL_PATIENCE = Duration.ofSeconds(1);

  private final Giver giver;
  private final Duration patience;

  /** The server, as a take-over sees it. */
  public interface Giver {
    /**
     * Stops serving, with all that was answered flushed.
     *
     * @throws IOException if it cannot; it goes on serving then
     */
    Paused pause(Duration patience) throws IOException;
  }

  /** A server that serves nobody; one of the two methods that end that is called, once. */
  public interface Paused {
    /** Returns what is handed over; its descriptors are the caller's. */
    Handover handover() throws IOException;

    /** Goes on serving. */
    void resume();

    /**
     * Closes the storage, since the new server has taken everything.
     *
     * @param process the ID of the new server's process
     * @throws IOException if this server has been told to end meanwhile, and the service with it
     */
    void leave(long process) throws IOException;
  }

  /**
   * Makes it.
   *
   * @param patience the time that the new server has until it is ready, and with it the longest
   *     time without service if it fails
   */
  public GivingServer(Giver giver, Duration patience) {
    this.giver = giver;
    this.patience = patience;
  }

  /**
   * Serves a request for a take-over; called by a platform thread.
   *
   * @param version that the request names
   * @return true if the new server has taken over
   */
  public boolean give(SocketChannel channel, String version) throws IOException {
    long process = UnixPeer.pidOf(channel);
    try (Exchange exchange = new Exchange(new PassingSocket(channel))) {
      Paused paused;
      try {
        requireVersion(version);
        paused = giver.pause(patience);
      } catch (IOException cannot) {
        Logger.error("no take-over: {}", cannot.getMessage());
        refuse(exchange, String.valueOf(cannot.getMessage()));
        return false;
      }
      boolean taken = false;
      try (Handover handover = paused.handover()) {
        exchange.send(handover, patience);
        exchange.awaitReady(patience);
        taken = true;
      } catch (RefusedException refused) {
        Logger.error("no take-over, the new server refuses: {}", refused.getMessage());
        return false;
      } catch (EOFException gone) {
        Logger.error("no take-over, the new server is gone");
        return false;
      } catch (IOException failure) {
        Logger.error("no take-over: {}", failure.getMessage());
        return false;
      } finally {
        if (!taken) {
          paused.resume();
          refuse(exchange, "it was not ready in time");
        }
      }
      try {
        paused.leave(process);
      } catch (IOException ending) {
        refuse(exchange, String.valueOf(ending.getMessage()));
        return false;
      }
      exchange.sendGo(GO_PATIENCE);
      return true;
    }
  }

  /**
   * Tells the new server that this one goes on. It may have said in the last moment that it is
   * ready; if it saw nothing but the end of the stream, it would serve, too.
   */
  private static void refuse(Exchange exchange, String why) {
    try {
      exchange.sendRefused(why, REFUSAL_PATIENCE);
    } catch (IOException gone) {
      Logger.debug("the new server is gone: {}", gone.getMessage());
    }
  }

  private static void requireVersion(String version) throws IOException {
    if (!version.equals(String.valueOf(Exchange.VERSION))) {
      throw new IOException(
          "version %s of the take-over is not known here, only %d"
              .formatted(version, Exchange.VERSION));
    }
  }
}
