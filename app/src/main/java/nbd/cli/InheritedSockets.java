package nbd.cli;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.Predicate;
import nbd.server.ListeningSocket;
import nbd.takeover.Handover.Listener;

/**
 * The listening sockets of a server that is taken over: each is used instead of the one that the
 * options ask for, at the same address. Used by one thread.
 */
final class InheritedSockets {
  private static final String CONTROL = "control";
  private static final String TCP = "tcp ";

  private final List<Listener> listeners;

  /** Has these sockets; those that are not taken stay the caller's. */
  InheritedSockets(List<Listener> listeners) {
    this.listeners = new ArrayList<>(listeners);
  }

  /** Has none. */
  static InheritedSockets none() {
    return new InheritedSockets(List.of());
  }

  /** Names the control socket of any server. */
  static String controlSocket() {
    return CONTROL;
  }

  /** Names the address of a listening socket. */
  static String nameOf(SocketAddress address) {
    return switch (address) {
      case InetSocketAddress internet ->
          TCP + nameOf(internet.getAddress()) + " " + internet.getPort();
      case UnixDomainSocketAddress unix -> nameOf(unix.getPath());
      default -> "";
    };
  }

  /** Names a host; the wildcards of IPv4 and IPv6 are one socket's, and a scope is not told. */
  private static String nameOf(InetAddress host) {
    return host.isAnyLocalAddress() ? "*" : host.getHostAddress().replaceFirst("%.*", "");
  }

  /** Names the address of a Unix socket. */
  static String nameOf(Path socket) {
    return "unix " + socket.toAbsolutePath().normalize();
  }

  /** Says whether it listens on TCP, and the service manager has not opened it. */
  static boolean isOwnTcp(Listener listener) {
    return listener.name().isEmpty() && listener.address().startsWith(TCP);
  }

  /** Takes the socket at an address, if there is one. */
  Optional<ListeningSocket> take(String name) throws IOException {
    return take(each -> each.address().equals(name));
  }

  /** Takes the first socket at any port of an address, if there is one. */
  Optional<ListeningSocket> takeAnyPort(InetSocketAddress address) throws IOException {
    String prefix = nameOf(address).replaceFirst("\\d+$", "");
    return take(each -> each.address().startsWith(prefix));
  }

  /** Takes the first socket that the service manager opened, if there is one. */
  Optional<ListeningSocket> takeOfServiceManager() throws IOException {
    return take(each -> each.name().isPresent());
  }

  /** Finds a private socket: one in a directory that was made for it, in a directory. */
  Optional<Path> privateSocket(Path parent, String prefix) {
    String begin = nameOf(parent.resolve(prefix));
    return listeners.stream()
        .map(Listener::address)
        .filter(name -> name.startsWith(begin))
        .map(name -> Path.of(name.substring("unix ".length())))
        .findFirst();
  }

  private Optional<ListeningSocket> take(Predicate<Listener> isWanted) throws IOException {
    for (Listener each : listeners) {
      if (isWanted.test(each)) {
        ListeningSocket taken = new ListeningSocket.Kept(each.socket(), each.name()).again();
        listeners.remove(each);
        return Optional.of(taken);
      }
    }
    return Optional.empty();
  }
}
