package nbd.cli;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.net.UnixDomainSocketAddress;
import java.net.UnknownHostException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import nbd.client.NbdUri;
import nbd.client.NbdUri.TlsParameters;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** Where serve listens. */
final class ListenOptions {
  /** A thousand clients may connect at once. */
  private static final int BACKLOG = 1024;

  @Option(
      names = {"-i", "--address"},
      paramLabel = "ADDR",
      defaultValue = "127.0.0.1",
      description = "Listen on this address (default: ${DEFAULT-VALUE}); 0.0.0.0 or :: for all.")
  private String address = "";

  @Option(
      names = {"-p", "--port"},
      paramLabel = "PORT",
      defaultValue = "10809",
      description = "Listen on this TCP port (default: ${DEFAULT-VALUE}); 0 for any free one.")
  private int port;

  @Option(
      names = {"-U", "--unix"},
      paramLabel = "PATH",
      description = "Listen on this Unix socket instead of TCP; it is removed at exit.")
  private @Nullable Path unix;

  /** A socket that listens, and the URI by which clients reach an export on it. */
  record Listening(ServerSocketChannel channel, NbdUri uri, @Nullable Path socket) {
    /** The same, for clients that have to use TLS. */
    Listening withTls(TlsParameters parameters) {
      return new Listening(channel, uri.withTls(parameters), socket);
    }

    /** Closes the socket and removes its file. */
    void close() throws IOException {
      channel.close();
      if (socket != null) {
        Files.deleteIfExists(socket);
      }
    }
  }

  /** Checks what the parser cannot; the message is for the user. */
  @Nullable String problem() {
    return port < 0 || port > 65535 ? "--port: " + port + " is not from 0 to 65535" : null;
  }

  /**
   * Listens.
   *
   * @param exportName of the URI
   * @throws IOException with a message for the user
   */
  Listening listen(String exportName) throws IOException {
    return unix == null ? listenTcp(exportName) : listenUnix(unix, exportName);
  }

  private Listening listenTcp(String exportName) throws IOException {
    ServerSocketChannel channel = ServerSocketChannel.open();
    try {
      InetAddress host = InetAddress.getByName(address);
      channel.setOption(StandardSocketOptions.SO_REUSEADDR, true);
      channel.bind(new InetSocketAddress(host, port), BACKLOG);
      int bound = ((InetSocketAddress) channel.getLocalAddress()).getPort();
      return new Listening(channel, NbdUri.tcp(host, bound, exportName), null);
    } catch (UnknownHostException unknown) {
      channel.close();
      throw new IOException("the address " + address + " is not known", unknown);
    } catch (IOException failure) {
      channel.close();
      throw new IOException(
          "cannot listen on %s port %d: %s".formatted(address, port, failure.getMessage()),
          failure);
    }
  }

  /**
   * Listens on a Unix socket.
   *
   * @throws IOException with a message for the user
   */
  static Listening listenUnix(Path path, String exportName) throws IOException {
    UnixDomainSocketAddress where = UnixDomainSocketAddress.of(path);
    removeStale(where);
    ServerSocketChannel channel = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    try {
      channel.bind(where, BACKLOG);
      return new Listening(channel, NbdUri.unix(path, exportName), path);
    } catch (IOException failure) {
      channel.close();
      throw new IOException(
          "cannot listen on %s: %s".formatted(path, failure.getMessage()), failure);
    }
  }

  /** A server that was killed leaves its socket behind: nobody answers on it any more. */
  private static void removeStale(UnixDomainSocketAddress where) throws IOException {
    Path path = where.getPath();
    if (!Files.exists(path) || Files.isRegularFile(path) || Files.isDirectory(path)) {
      return;
    }
    try (SocketChannel probe = SocketChannel.open(where)) {
      throw new IOException(
          "cannot listen on %s: another server answers on it".formatted(probe.getRemoteAddress()));
    } catch (java.net.ConnectException nobody) {
      Files.delete(path);
    }
  }
}
