package nbd.posix;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ProtocolFamily;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.NetworkChannel;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.util.Collections;
import java.util.Map;
import java.util.WeakHashMap;

/**
 * A channel of the JDK for a socket that another process opened, and that this process has as a
 * descriptor. Any thread may call.
 *
 * <p>The JDK makes channels only of sockets that it opened itself. So here a channel of the same
 * family is opened and brought to the same state, and the given socket takes the place of the
 * channel's own (dup3(2)). The channel remembers the addresses of its first socket: {@link
 * #localAddress} and {@link #remoteAddress} tell those of the given one.
 *
 * <p>The blocking mode belongs to the open file description (open(2)): a process that keeps the
 * socket, too, sees it change to the channel's.
 */
public final class AdoptedSocket {
  private static final Map<SocketChannel, SocketAddress> REMOTE =
      Collections.synchronizedMap(new WeakHashMap<>());

  private AdoptedSocket() {}

  /**
   * Makes a channel of a socket that listens. The channel owns the socket: the descriptor's number
   * is closed.
   *
   * @param fd the descriptor; stays open if this fails
   * @throws IOException if it is not a listening TCP or Unix socket, or this is no 64-bit Linux
   */
  public static ServerSocketChannel listener(int fd) throws IOException {
    RawSocket given = new RawSocket(fd);
    StandardProtocolFamily family = given.streamFamily();
    if (!given.isListening()) {
      throw new IOException("descriptor " + fd + " is not a listening socket");
    }
    return replaced(
        ServerSocketChannel.open(family),
        channel -> {
          bindAnywhere(channel, family);
          removeName(channel);
        },
        given);
  }

  /**
   * Makes a channel of a socket that is connected. The channel owns the socket: the descriptor's
   * number is closed.
   *
   * @param fd the descriptor; stays open if this fails
   * @throws IOException if it is not a connected TCP or Unix socket, or this is no 64-bit Linux
   */
  public static SocketChannel connected(int fd) throws IOException {
    RawSocket given = new RawSocket(fd);
    StandardProtocolFamily family = given.streamFamily();
    SocketAddress remote = given.remote();
    SocketChannel adopted =
        replaced(SocketChannel.open(family), channel -> connectAnywhere(channel, family), given);
    REMOTE.put(adopted, remote);
    return adopted;
  }

  /** Connects a channel to a socket of this process, which is closed at once. */
  private static void connectAnywhere(SocketChannel channel, ProtocolFamily family)
      throws IOException {
    ProtocolFamily passive =
        family == StandardProtocolFamily.UNIX ? family : StandardProtocolFamily.INET;
    try (ServerSocketChannel listener = ServerSocketChannel.open(passive)) {
      bindAnywhere(listener, passive);
      try {
        channel.connect(listener.getLocalAddress());
      } finally {
        removeName(listener);
      }
    }
  }

  private static void bindAnywhere(ServerSocketChannel channel, ProtocolFamily family)
      throws IOException {
    channel.bind(
        family == StandardProtocolFamily.UNIX
            ? null
            : new InetSocketAddress(InetAddress.getByAddress(new byte[] {127, 0, 0, 1}), 0));
  }

  /** Removes the file of a Unix socket, which stays connected. */
  private static void removeName(ServerSocketChannel channel) throws IOException {
    if (channel.getLocalAddress() instanceof UnixDomainSocketAddress address) {
      Files.deleteIfExists(address.getPath());
    }
  }

  /** Brings a channel to the state of the given socket. */
  @FunctionalInterface
  private interface Preparation<C> {
    void prepare(C channel) throws IOException;
  }

  private static <C extends NetworkChannel> C replaced(
      C channel, Preparation<C> preparation, RawSocket given) throws IOException {
    boolean done = false;
    try {
      preparation.prepare(channel);
      int own = SocketDescriptor.find(channel);
      // On a virtual thread the JDK may have changed it.
      given.setNonBlocking(new RawSocket(own).isNonBlocking());
      given.replace(own);
      done = true;
      return channel;
    } finally {
      if (!done) {
        channel.close();
      }
    }
  }

  /**
   * Finds the address to which a socket is bound; of an abstract Unix socket, its name with @ for
   * the zero byte.
   *
   * @param fd the descriptor of a socket
   * @throws IOException if it is not a TCP or Unix socket
   */
  public static SocketAddress localAddress(int fd) throws IOException {
    RawSocket socket = new RawSocket(fd);
    socket.streamFamily();
    return socket.local();
  }

  /**
   * Finds the address to which a channel is bound, whether the channel is adopted or not.
   *
   * @throws IOException if the channel is closed, or this is no 64-bit Linux
   */
  public static SocketAddress localAddress(NetworkChannel channel) throws IOException {
    return localAddress(SocketDescriptor.find(channel));
  }

  /**
   * Finds the address of a channel's peer, whether the channel is adopted or not.
   *
   * @throws IOException if the channel is closed
   */
  public static SocketAddress remoteAddress(SocketChannel channel) throws IOException {
    SocketAddress adopted = REMOTE.get(channel);
    return adopted == null ? channel.getRemoteAddress() : adopted;
  }
}
