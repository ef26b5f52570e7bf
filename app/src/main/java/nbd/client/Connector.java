package nbd.client;

import java.io.EOFException;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.util.ArrayList;
import java.util.List;
import nbd.client.Endpoint.Tcp;
import nbd.client.Endpoint.Unix;
import nbd.protocol.BaseAllocation;
import nbd.protocol.NbdException;
import nbd.protocol.OptionException;
import nbd.protocol.ProtocolException;
import nbd.protocol.WireInput;
import org.jspecify.annotations.Nullable;

/**
 * An attempt to connect to a server: the socket, its options and the handshake, with a deadline.
 */
final class Connector {
  /** Keeps the server busy while this side does something else. The kernel may allow less. */
  private static final int UNIX_BUFFER = 2 << 20;

  /** Room for eight replies of 4 KiB at first, and for 32 once reads fill it. */
  static final int INPUT_BYTES = 36 << 10;

  private static final int MOST_INPUT_BYTES = 4 * INPUT_BYTES;

  private final NbdUri uri;
  private final ClientSettings settings;
  private final ConnectAttempts attempts;
  private final HostNames names;

  /**
   * Makes an attempt.
   *
   * @param uri with the export's name; the messages of failures begin with it
   * @param attempts which may be ended early
   */
  Connector(NbdUri uri, ClientSettings settings, ConnectAttempts attempts) {
    this(uri, settings, attempts, HostNames.SYSTEM);
  }

  /** Makes an attempt that resolves host names in a test's way. */
  Connector(NbdUri uri, ClientSettings settings, ConnectAttempts attempts, HostNames names) {
    this.uri = uri;
    this.settings = settings;
    this.attempts = attempts;
    this.names = names;
  }

  /** Does the handshake. */
  @FunctionalInterface
  interface Conversation<T> {
    T with(Negotiation negotiation) throws IOException;
  }

  /** Connects, has a conversation, and disconnects. */
  <T> T ask(Conversation<T> conversation) throws IOException {
    return connect(
        negotiation -> {
          T answer = conversation.with(negotiation);
          negotiation.wire.close();
          return answer;
        });
  }

  /** Connects and opens the URI's export with base:allocation. */
  NbdClient open() throws IOException {
    return open(List.of(BaseAllocation.NAME));
  }

  /** Connects and opens the URI's export with these metadata contexts. */
  NbdClient open(List<String> contexts) throws IOException {
    NbdClient client =
        connect(
            negotiation ->
                new NbdClient(
                    uri.toString(),
                    negotiation.wire,
                    negotiation.in,
                    negotiation.open(contexts),
                    settings.requestTimeout()));
    client.start();
    return client;
  }

  private <T> T connect(Conversation<T> conversation) throws IOException {
    try (ConnectDeadline deadline = new ConnectDeadline(settings.connectTimeout(), attempts)) {
      SocketChannel socket = null;
      boolean done = false;
      try {
        socket = connect(deadline);
        Wire wire = new Wire(socket);
        WireInput in = new WireInput(wire, INPUT_BYTES, MOST_INPUT_BYTES);
        T result = conversation.with(new Negotiation(wire, in, uri));
        if (!deadline.met()) {
          throw new IOException("too late");
        }
        done = true;
        return result;
      } catch (IOException failure) {
        throw described(failure, deadline);
      } finally {
        if (!done && socket != null) {
          socket.close();
        }
      }
    }
  }

  private IOException described(IOException failure, ConnectDeadline deadline) {
    String message = failure.getMessage();
    String ended = deadline.ended();
    if (ended != null) {
      return new IOException(uri + ": " + ended, failure);
    }
    return switch (failure) {
      case OptionException refused ->
          new OptionException(
              refused.type(),
              uri + ": " + message,
              NbdException.messageForClient(refused),
              failure);
      case ProtocolException broken -> new ProtocolException(uri + ": " + message);
      case EOFException _ ->
          new IOException(uri + ": the server closed the connection in the handshake", failure);
      case IOException _ when isReset(message) ->
          new IOException(
              "%s: the server closed the connection in the handshake: %s".formatted(uri, message),
              failure);
      default ->
          new IOException(
              uri + ": " + (message == null ? failure.getClass().getSimpleName() : message),
              failure);
    };
  }

  /** Recognizes a reset by its message: the JDK has no type for it. It is shorter on TCP. */
  static boolean isReset(@Nullable String message) {
    return message != null
        && (message.equals("Broken pipe") || message.startsWith("Connection reset"));
  }

  private SocketChannel connect(ConnectDeadline deadline) throws IOException {
    return switch (uri.endpoint()) {
      case Unix(var path) -> {
        SocketChannel socket = SocketChannel.open(StandardProtocolFamily.UNIX);
        socket.setOption(StandardSocketOptions.SO_SNDBUF, UNIX_BUFFER);
        socket.setOption(StandardSocketOptions.SO_RCVBUF, UNIX_BUFFER);
        yield connected(socket, UnixDomainSocketAddress.of(path), deadline);
      }
      case Tcp(String host, int port) -> connectTcp(host, port, deadline);
    };
  }

  /** Tries all addresses of a host name: the server need not listen on the first. */
  private SocketChannel connectTcp(String host, int port, ConnectDeadline deadline)
      throws IOException {
    List<IOException> failures = new ArrayList<>();
    for (InetAddress address : names.addresses(host, deadline)) {
      SocketChannel socket = SocketChannel.open();
      socket.setOption(StandardSocketOptions.TCP_NODELAY, true);
      socket.setOption(StandardSocketOptions.SO_KEEPALIVE, true);
      try {
        return connected(socket, new InetSocketAddress(address, port), deadline);
      } catch (IOException failure) {
        failures.add(failure);
      }
    }
    throw failures.getFirst();
  }

  private static SocketChannel connected(
      SocketChannel socket, SocketAddress address, ConnectDeadline deadline) throws IOException {
    boolean done = false;
    try {
      deadline.guard(() -> Wire.close(socket));
      socket.connect(address);
      done = true;
      return socket;
    } catch (IOException failure) {
      throw new IOException("cannot connect: " + failure.getMessage(), failure);
    } finally {
      if (!done) {
        socket.close();
      }
    }
  }
}
