package nbd.server;

import java.io.EOFException;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketException;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;
import javax.net.ssl.SSLException;
import nbd.posix.UnixPeer;
import nbd.protocol.Printable;
import nbd.protocol.ProtocolException;
import nbd.threads.PolledInput;
import nbd.threads.TimeSlice;
import nbd.transmission.Admission;
import nbd.transmission.Admission.Share;
import nbd.transmission.OpenExport;
import nbd.transmission.Replies;
import nbd.transmission.Transmission;
import org.tinylog.Logger;

/** One client's connection, from the greeting to the end; {@link #run} is its virtual thread. */
final class Connection implements Runnable {
  private final String name;
  private final SocketChannel channel;
  private final Exports exports;
  private final Admission admission;
  private final Duration handshakeTimeout;
  private final ScheduledExecutorService timer;
  private final TimeSlice slice;
  private final TlsPolicy tls;

  /**
   * Guards {@code phase}: it goes forward only, and what is done to the socket from outside depends
   * on it.
   */
  private final ReentrantLock lock = new ReentrantLock();

  private Phase phase = Phase.HANDSHAKE;

  private enum Phase {
    HANDSHAKE,
    TRANSMISSION,
    STOPPING,
    TIMED_OUT
  }

  Connection(
      long number,
      SocketChannel channel,
      Exports exports,
      Admission admission,
      Duration handshakeTimeout,
      ScheduledExecutorService timer,
      BooleanSupplier crowded,
      TlsPolicy tls)
      throws IOException {
    this.name = "connection " + number + from(channel);
    this.channel = channel;
    this.exports = exports;
    this.admission = admission;
    this.handshakeTimeout = handshakeTimeout;
    this.timer = timer;
    this.slice = new TimeSlice(crowded);
    this.tls = tls;
  }

  private static String from(SocketChannel channel) throws IOException {
    return switch (channel.getRemoteAddress()) {
      case InetSocketAddress address -> " from " + address.toString().replace("/", "");
      case UnixDomainSocketAddress _ ->
          UnixPeer.of(channel).map(process -> " from " + process).orElse("");
      case null, default -> "";
    };
  }

  @Override
  public void run() {
    Logger.debug("{}: accepted", name);
    try (channel) {
      serve();
      Logger.debug("{}: ended", name);
    } catch (ProtocolException garbage) {
      Logger.warn("{}: ended, {}", name, garbage.getMessage());
    } catch (SSLException disagreed) {
      Logger.warn(disagreed, "{}: ended, TLS failed: {}", name, disagreed.getMessage());
    } catch (EOFException | ClosedChannelException | SocketException gone) {
      ended(gone);
    } catch (IOException failure) {
      if (isBrokenPipe(failure)) {
        ended(failure);
      } else {
        Logger.error(failure, "{}: ended, {}", name, failure.getMessage());
      }
    } catch (RuntimeException | Error failure) {
      Logger.error(failure, "{}: ended by a mistake in the server: {}", name, failure);
    }
  }

  private void ended(IOException gone) {
    switch (phase()) {
      case TIMED_OUT ->
          Logger.warn(
              "{}: ended, no export was chosen within {} s",
              name,
              handshakeTimeout.toMillis() / 1000.0);
      case STOPPING -> Logger.debug("{}: ended, the server stops", name);
      default -> Logger.debug("{}: ended, the peer is gone: {}", name, gone.getMessage());
    }
  }

  /** The JDK reports these on a Unix socket without a type of their own. */
  private static boolean isBrokenPipe(IOException failure) {
    String message = failure.getMessage();
    return message != null
        && (message.equals("Broken pipe") || message.equals("Connection reset by peer"));
  }

  private void serve() throws IOException {
    ReentrantLock sending = new ReentrantLock();
    Wire wire =
        new Wire(
            new PolledInput(channel, sending, slice, PolledInput.USUAL),
            channel,
            admission.buffers());
    try {
      Optional<OpenExport> chosen = handshake(wire);
      if (chosen.isPresent()) {
        transmit(wire, sending, chosen.get());
      }
    } finally {
      wire.close();
    }
  }

  private void transmit(Wire wire, ReentrantLock sending, OpenExport export) throws IOException {
    try {
      if (advance(Phase.HANDSHAKE, Phase.TRANSMISSION)) {
        Logger.debug(
            "{}: serves \"{}\" with {}", name, Printable.name(export.name()), export.offer());
        transmit(wire, sending, export, admission.open(this::cutStalled));
      }
    } finally {
      export.handle().close();
    }
  }

  private void transmit(Wire wire, ReentrantLock sending, OpenExport export, Share share)
      throws IOException {
    try (share) {
      Replies replies = new Replies(wire.out(), sending, share.buffers(), share.sending());
      new Transmission(name, wire.in(), replies, export, share, slice)
          .run(() -> phase() == Phase.STOPPING);
    }
  }

  private void cutStalled() {
    Logger.warn(
        "{}: is cut, it sends its writes or takes its replies too slowly while others wait for"
            + " memory",
        name);
    close();
  }

  private Optional<OpenExport> handshake(Wire wire) throws IOException {
    Future<?> deadline =
        timer.schedule(
            () -> {
              if (advance(Phase.HANDSHAKE, Phase.TIMED_OUT)) {
                close();
              }
            },
            handshakeTimeout.toNanos(),
            TimeUnit.NANOSECONDS);
    try {
      return new Handshake(name, wire, exports, tls).run();
    } finally {
      deadline.cancel(false);
    }
  }

  /**
   * Ends the connection when the requests that it has received are answered. May be called again,
   * which changes nothing.
   */
  void stop() {
    lock.lock();
    try {
      Phase before = phase;
      phase = Phase.STOPPING;
      switch (before) {
        case HANDSHAKE -> close();
        case TRANSMISSION -> channel.shutdownInput();
        case STOPPING, TIMED_OUT -> phase = before;
      }
    } catch (IOException failure) {
      close();
    } finally {
      lock.unlock();
    }
  }

  /** Ends the connection now. */
  void close() {
    try {
      channel.close();
    } catch (IOException failure) {
      Logger.debug("{}: {}", name, failure.getMessage());
    }
  }

  private Phase phase() {
    lock.lock();
    try {
      return phase;
    } finally {
      lock.unlock();
    }
  }

  private boolean advance(Phase from, Phase to) {
    lock.lock();
    try {
      if (phase != from) {
        return false;
      }
      phase = to;
      return true;
    } finally {
      lock.unlock();
    }
  }
}
