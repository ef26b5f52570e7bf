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
import nbd.protocol.NbdException;
import nbd.protocol.OptionException;
import nbd.protocol.ProtocolException;
import nbd.protocol.WireInput;
import org.jspecify.annotations.Nullable;

/**
 * Makes connections to one server: the socket, its options, the handshake, all before a deadline.
 */
final class Connector {
  /**
   * What keeps a server busy while this side does something else; the kernel's limit may be less.
   */
  private static final int UNIX_BUFFER = 2 << 20;

  /** Read ahead: eight replies of 4 KiB. */
  private static final int INPUT_BYTES = 36 << 10;

  private final NbdUri uri;
  private final ClientSettings settings;
  private final ConnectAttempts attempts;
  private final HostNames names;

  /**
   * For one server.
   *
   * @param uri with the export's name, by which messages begin
   * @param attempts what can end it early
   */
  Connector(NbdUri uri, ClientSettings settings, ConnectAttempts attempts) {
    this(uri, settings, attempts, HostNames.SYSTEM);
  }

  /** For tests, which find addresses by themselves. */
  Connector(NbdUri uri, ClientSettings settings, ConnectAttempts attempts, HostNames names) {
    this.uri = uri;
    this.settings = settings;
    this.attempts = attempts;
    this.names = names;
  }

  /** What is done in the handshake. */
  @FunctionalInterface
  interface Conversation<T> {
    T with(Negotiation negotiation) throws IOException;
  }

  /** Connects, has this conversation, and ends the connection. */
  <T> T ask(Conversation<T> conversation) throws IOException {
    return connect(
        (wire, in) -> {
          T answer = conversation.with(new Negotiation(wire, in, uri, settings));
          wire.close();
          return answer;
        });
  }

  /** Connects and opens the URI's export. */
  NbdClient open() throws IOException {
    return connect(
            (wire, in) -> {
              ExportInfo export = new Negotiation(wire, in, uri, settings).open(uri.exportName());
              Link link = new Link(uri.toString(), wire, settings.requestTimeout());
              SendQueue queue = new SendQueue(wire, link, export.extendedHeaders());
              return new Opened(
                  new NbdClient(wire, link, queue, export),
                  link,
                  new ReplyReader(link, in, export));
            })
        .start(uri);
  }

  /** A client that has yet to be started. */
  private record Opened(NbdClient client, Link link, ReplyReader reader) {
    /** Nothing can go wrong any more. */
    NbdClient start(NbdUri uri) {
      Thread.ofVirtual().name("replies of " + uri).start(reader);
      link.watch();
      return client;
    }
  }

  /** What is done with a fresh connection. */
  @FunctionalInterface
  private interface Use<T> {
    T of(Wire wire, WireInput in) throws IOException;
  }

  private <T> T connect(Use<T> use) throws IOException {
    try (ConnectDeadline deadline = new ConnectDeadline(settings.connectTimeout(), attempts)) {
      SocketChannel socket = null;
      boolean done = false;
      try {
        socket = connect(deadline);
        Wire wire = new Wire(socket);
        T result = use.of(wire, new WireInput(wire, INPUT_BYTES));
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
              refused.type(), uri + ": " + message, NbdException.told(refused), failure);
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

  /** The JDK has no type of its own for these; on TCP the second one is shorter. */
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

  /** A name may have several addresses, of which the server need not listen on the first. */
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
      deadline.guard(socket);
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
