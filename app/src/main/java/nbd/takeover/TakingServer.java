package nbd.takeover;

import java.io.EOFException;
import java.io.IOException;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import nbd.posix.PassingSocket;
import nbd.posix.PosixException;
import org.tinylog.Logger;

/** The side of a take-over that takes, from a running server. Used by one platform thread. */
public final class TakingServer implements Predecessor {
  /** The line that asks for the take-over. */
  public static final String REQUEST = GivingServer.REQUEST + " " + Exchange.VERSION;

  /** Longer than the other server takes to finish its clients' requests and to flush. */
  private static final Duration PATIENCE = Duration.ofMinutes(5);

  private static final Duration FOREVER = Duration.ofDays(365);

  private final SocketChannel channel;
  private final Exchange exchange;
  private final Handover handover;

  /**
   * Waits until the other server has handed everything over.
   *
   * @param channel to its control socket, behind the request; owned from now on
   * @throws RefusedException if it refuses
   */
  public TakingServer(SocketChannel channel) throws IOException {
    this.channel = channel;
    this.exchange = new Exchange(new PassingSocket(channel));
    boolean received = false;
    try {
      this.handover = exchange.receive(PATIENCE);
      received = true;
    } finally {
      if (!received) {
        exchange.close();
        channel.close();
      }
    }
  }

  @Override
  public Handover handover() {
    return handover;
  }

  @Override
  public boolean mayGoOn() {
    return true;
  }

  @Override
  public void refuse(String why) {
    try {
      exchange.sendRefused(why, PATIENCE);
    } catch (IOException gone) {
      Logger.debug("the other server is gone: {}", gone.getMessage());
    }
  }

  @Override
  public void take() throws IOException {
    try {
      exchange.sendReady(PATIENCE);
    } catch (PosixException closed) {
      // What it said last tells whether it goes on.
      Logger.debug("the other server does not listen: {}", closed.getMessage());
    }
    try {
      // However long it takes to close its storage: two servers must not have it.
      exchange.awaitGo(FOREVER);
    } catch (EOFException gone) {
      Logger.warn("the other server ended before it had closed its storage");
    }
  }

  @Override
  public void close() throws IOException {
    handover.close();
    exchange.close();
    channel.close();
  }
}
