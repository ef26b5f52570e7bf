package nbd.server;

import java.io.EOFException;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketException;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.time.Instant;
import java.util.Optional;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import javax.net.ssl.SSLException;
import nbd.posix.AdoptedSocket;
import nbd.posix.Descriptor;
import nbd.posix.SpliceSocket;
import nbd.posix.UnixPeer;
import nbd.protocol.Printable;
import nbd.protocol.ProtocolException;
import nbd.protocol.WireInput;
import nbd.threads.ConnectionThreads;
import nbd.threads.TimeSlice;
import nbd.threads.VirtualThreads;
import nbd.transmission.Admission;
import nbd.transmission.Admission.Share;
import nbd.transmission.OpenExport;
import nbd.transmission.Replies;
import nbd.transmission.Transmission;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/** One client's connection, from the greeting to the end; {@link #run} is its virtual thread's. */
final class Connection implements Runnable, Export.Client {
  private final long number;
  private final Instant since;
  private final String peer;
  private final String name;
  private final SocketChannel channel;
  private final ExportView exports;
  private final Admission admission;
  private final Duration handshakeTimeout;
  private final ScheduledExecutorService timer;
  private final TimeSlice slice;
  private final ConnectionThreads threads;
  private final TlsPolicy tls;
  private final int ahead;
  private final Optional<PausedClient> resumed;
  private final Seat seat;
  private final Consumer<PausedClient> pausing;

  /** Guards the three fields below. */
  private final ReentrantLock pauseLock = new ReentrantLock();

  /** The transmission, while it runs. */
  private @Nullable Transmission transmission;

  /** The socket again, when the channel was closed so that the transmission pauses. */
  private @Nullable Descriptor kept;

  private boolean secure;

  /** Goes forward only; whoever changes it does to the socket what follows from the change. */
  private final AtomicReference<Phase> phase = new AtomicReference<>(Phase.HANDSHAKE);

  /** The socket again, if data may be spliced; the client sees its end when both are closed. */
  private volatile Optional<SpliceSocket> spliced = Optional.empty();

  /** Null before the client has chosen an export. */
  private volatile @Nullable Serving serving;

  /** The name of the export that is served, and its requests. */
  private record Serving(String export, Transmission transmission) {}

  private enum Phase {
    HANDSHAKE,
    TRANSMISSION,
    STOPPING,
    TIMED_OUT
  }

  /**
   * Makes a connection of an accepted client.
   *
   * @param exports those that the client finds
   * @param crowded whether other connections may be waiting for a processor
   * @param ahead how many bytes of requests to read ahead
   * @param resumed the client, if it comes from a connection that has paused
   * @param pausing gets the client when this connection has paused
   */
  Connection(
      long number,
      SocketChannel channel,
      ExportView exports,
      Admission admission,
      Duration handshakeTimeout,
      ScheduledExecutorService timer,
      BooleanSupplier crowded,
      ConnectionThreads threads,
      TlsPolicy tls,
      int ahead,
      Optional<PausedClient> resumed,
      Consumer<PausedClient> pausing)
      throws IOException {
    this.number = number;
    this.since = Instant.now();
    this.peer = from(channel);
    this.name = "connection " + number + (peer.isEmpty() ? "" : " from " + peer);
    this.channel = channel;
    this.exports = exports;
    this.admission = admission;
    this.handshakeTimeout = handshakeTimeout;
    this.timer = timer;
    this.slice = new TimeSlice(crowded);
    this.threads = threads;
    this.tls = tls;
    this.ahead = ahead;
    this.resumed = resumed;
    this.seat = resumed.map(PausedClient::seat).orElseGet(Seat::new);
    this.pausing = pausing;
  }

  private static String from(SocketChannel channel) throws IOException {
    return switch (AdoptedSocket.remoteAddress(channel)) {
      case InetSocketAddress address -> address.toString().replace("/", "");
      case UnixDomainSocketAddress _ -> UnixPeer.of(channel).orElse("");
      case null, default -> "";
    };
  }

  @Override
  public void run() {
    Logger.debug("{}: {}", name, resumed.isPresent() ? "resumed" : "accepted");
    seat.give(this);
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
    switch (phase.get()) {
      case TIMED_OUT ->
          Logger.warn(
              "{}: ended, no export was chosen within {} s",
              name,
              handshakeTimeout.toMillis() / 1000.0);
      case STOPPING -> Logger.debug("{}: ended, the server or the export stops", name);
      default -> Logger.debug("{}: ended, the peer is gone: {}", name, gone.getMessage());
    }
  }

  /** Recognizes failures that the JDK reports on Unix sockets as plain IOExceptions. */
  private static boolean isBrokenPipe(IOException failure) {
    String message = failure.getMessage();
    return message != null
        && (message.equals("Broken pipe") || message.equals("Connection reset by peer"));
  }

  private void serve() throws IOException {
    ReentrantLock sending = new ReentrantLock();
    Wire wire = new Wire(slice.input(channel), channel, admission.buffers(), ahead);
    try {
      Optional<OpenExport> chosen =
          resumed.isPresent()
              ? Optional.of(resume(wire, resumed.get()))
              : threads.run(() -> handshake(wire));
      if (chosen.isPresent()) {
        transmit(wire, sending, chosen.get());
      }
    } finally {
      wire.close();
    }
  }

  private static OpenExport resume(Wire wire, PausedClient client) {
    wire.in().refill(client.ahead());
    return client.export();
  }

  private void transmit(Wire wire, ReentrantLock sending, OpenExport export) throws IOException {
    boolean paused = false;
    try {
      if (!phase.compareAndSet(Phase.HANDSHAKE, Phase.TRANSMISSION)) {
        return;
      }
      Logger.debug(
          "{}: serves \"{}\" with {}", name, Printable.name(export.name()), export.offer());
      spliced =
          export.handle().takesPipes() && !wire.isSecure()
              ? SpliceSocket.of(channel)
              : Optional.empty();
      if (spliced.isPresent()) {
        VirtualThreads.stopBlocking(channel);
      }
      try (Share share = admission.open(this::cutStalled)) {
        Replies replies =
            new Replies(wire.out(), spliced, sending, share.buffers(), share.sending());
        Transmission running =
            new Transmission(name, wire.in(), replies, export, share, slice, threads);
        serving = new Serving(export.name(), running);
        begin(running, wire.isSecure());
        paused = running.run(() -> phase.get() == Phase.STOPPING) && handOver(export, wire.in());
      } finally {
        end();
        spliced.ifPresent(SpliceSocket::close);
      }
    } finally {
      if (!paused) {
        export.close();
      }
    }
  }

  private void begin(Transmission running, boolean isSecure) {
    pauseLock.lock();
    try {
      transmission = running;
      secure = isSecure;
    } finally {
      pauseLock.unlock();
    }
  }

  private void end() {
    pauseLock.lock();
    try {
      transmission = null;
      if (kept != null) {
        kept.close();
      }
    } finally {
      pauseLock.unlock();
    }
  }

  /**
   * Makes the connection pause, if it can do so now; called again and again until it has ended. One
   * with TLS cannot, and is stopped; one in the handshake has to end that first.
   */
  void pause() {
    pauseLock.lock();
    try {
      if (transmission != null && secure) {
        stop();
      } else if (transmission != null && transmission.pause() && channel.isOpen()) {
        kept = Descriptor.of(channel);
        close();
      }
    } catch (IOException failure) {
      Logger.debug("{}: cannot pause: {}", name, failure.getMessage());
    } finally {
      pauseLock.unlock();
    }
  }

  /** Says whether no export is served: not yet, or not any more. */
  boolean isServingNothing() {
    pauseLock.lock();
    try {
      return transmission == null;
    } finally {
      pauseLock.unlock();
    }
  }

  /** Takes the wish for a pause back; the connection may have paused already. */
  void withdrawPause() {
    pauseLock.lock();
    try {
      if (transmission != null && kept == null) {
        transmission.withdrawPause();
      }
    } finally {
      pauseLock.unlock();
    }
  }

  /**
   * Gives the client to whoever wanted the pause; false if it cannot be had without its channel.
   */
  private boolean handOver(OpenExport export, WireInput in) {
    Descriptor socket;
    pauseLock.lock();
    try {
      socket = kept == null ? Descriptor.of(channel) : kept;
      kept = null;
      transmission = null;
    } catch (IOException failure) {
      Logger.warn("{}: ended, it cannot be paused: {}", name, failure.getMessage());
      return false;
    } finally {
      pauseLock.unlock();
    }
    Logger.debug("{}: pauses", name);
    // Without the lock: the other side has one, too, under which it may call this connection.
    pausing.accept(new PausedClient(socket, export, seat, in.takeBuffered()));
    return true;
  }

  private void cutStalled() {
    Logger.warn(
        "{}: closed, the client sends its writes or takes its replies too slowly while others wait"
            + " for memory",
        name);
    close();
  }

  private Optional<OpenExport> handshake(Wire wire) throws IOException {
    Future<?> deadline =
        timer.schedule(
            () -> {
              if (phase.compareAndSet(Phase.HANDSHAKE, Phase.TIMED_OUT)) {
                close();
              }
            },
            handshakeTimeout.toNanos(),
            TimeUnit.NANOSECONDS);
    try {
      return new Handshake(name, wire, exports, seat, tls).run();
    } finally {
      deadline.cancel(false);
    }
  }

  /** Describes the connection at this moment. */
  ConnectionState state() {
    Optional<Serving> now = Optional.ofNullable(serving);
    return new ConnectionState(
        number,
        peer,
        now.map(Serving::export),
        since,
        now.map(each -> each.transmission().requests()).orElse(0L),
        now.map(each -> each.transmission().bytes()).orElse(0L));
  }

  /** Says whether the client chose an export. */
  boolean hasExport() {
    return serving != null;
  }

  /** Ends the connection when the requests that it has received are answered. */
  @Override
  public void stop() {
    Phase before =
        phase.getAndUpdate(now -> now == Phase.TIMED_OUT ? Phase.TIMED_OUT : Phase.STOPPING);
    try {
      switch (before) {
        case HANDSHAKE -> close();
        case TRANSMISSION -> channel.shutdownInput();
        case STOPPING, TIMED_OUT -> {}
      }
    } catch (IOException failure) {
      close();
    }
  }

  /** Ends the connection now. */
  @Override
  public void close() {
    spliced.ifPresent(SpliceSocket::close);
    try {
      channel.close();
    } catch (IOException failure) {
      Logger.debug("{}: {}", name, failure.getMessage());
    }
  }
}
