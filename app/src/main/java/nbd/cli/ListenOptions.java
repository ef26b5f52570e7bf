package nbd.cli;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.net.UnknownHostException;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import nbd.client.NbdUri;
import nbd.client.NbdUri.TlsParameters;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** The options of serve for the address on which it listens. */
final class ListenOptions {
  /** So many clients may connect at once. */
  private static final int BACKLOG = 1024;

  private static final String ADDRESS = "127.0.0.1";
  private static final int PORT = 10809;

  @Option(
      names = {"-i", "--address"},
      paramLabel = "ADDR",
      description = "Listen on this address (default: " + ADDRESS + "); 0.0.0.0 or :: for all.")
  private @Nullable String address;

  @Option(
      names = {"-p", "--port"},
      paramLabel = "PORT",
      description = "Listen on this TCP port (default: " + PORT + "); 0 for any free one.")
  private @Nullable Integer port;

  @Option(
      names = {"-U", "--unix"},
      paramLabel = "PATH",
      description =
          "Listen on this Unix socket instead of TCP; it is removed at exit. With -, on one in a"
              + " new private directory, which is removed too.")
  private @Nullable Path unix;

  /**
   * A listening socket, and the URI by which clients reach an export on it.
   *
   * @param socket the path of a Unix socket
   * @param made the files that were made for it, in the order in which they are removed
   */
  record Listening(
      ServerSocketChannel channel, NbdUri uri, Optional<Path> socket, List<OwnFile> made) {
    /** Makes the URI one of TLS. */
    Listening withTls(TlsParameters parameters) {
      return new Listening(channel, uri.withTls(parameters), socket, made);
    }

    /** Removes the files, except those that others have replaced. */
    void removeFiles() throws IOException {
      for (OwnFile file : made) {
        file.remove();
      }
    }
  }

  /** Throws a {@link UsageException} if the options are wrong. */
  void check() {
    UsageException.refuseIf(
        unix != null && (address != null || port != null),
        "--unix: not with " + (port != null ? "--port" : "--address"));
    UsageException.refuseIf(
        port != null && (port < 0 || port > 65535), "--port: " + port + " is not from 0 to 65535");
  }

  /**
   * Listens as the options say.
   *
   * @param exportName the export in the URI
   * @param privately whether to listen on a private Unix socket if no option is given
   * @throws IOException with a message for the user
   */
  Listening listen(String exportName, boolean privately) throws IOException {
    if (unix != null) {
      return unix.equals(Path.of("-"))
          ? listenPrivately(exportName)
          : listenUnix(unix, exportName, List.of());
    }
    return privately && address == null && port == null
        ? listenPrivately(exportName)
        : listenTcp(
            Objects.requireNonNullElse(address, ADDRESS),
            Objects.requireNonNullElse(port, PORT),
            exportName);
  }

  private static Listening listenTcp(String address, int port, String exportName)
      throws IOException {
    ServerSocketChannel channel = ServerSocketChannel.open();
    try {
      InetAddress host = InetAddress.getByName(address);
      channel.setOption(StandardSocketOptions.SO_REUSEADDR, true);
      channel.bind(new InetSocketAddress(host, port), BACKLOG);
      int bound = ((InetSocketAddress) channel.getLocalAddress()).getPort();
      return new Listening(
          channel, NbdUri.tcp(host, bound, exportName), Optional.empty(), List.of());
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
   * @param around the directory that was made for it, if any; removed after the socket
   */
  private static Listening listenUnix(Path path, String exportName, List<OwnFile> around)
      throws IOException {
    ServerSocketChannel channel = UnixSocket.listen(path, BACKLOG);
    try {
      List<OwnFile> made = new ArrayList<>(List.of(OwnFile.of(path)));
      made.addAll(around);
      return new Listening(channel, NbdUri.unix(path, exportName), Optional.of(path), made);
    } catch (IOException gone) {
      channel.close();
      throw new IOException("cannot listen on %s: %s".formatted(path, Failure.reason(gone)), gone);
    }
  }

  /** Listens on a Unix socket that only this user can reach. */
  private static Listening listenPrivately(String exportName) throws IOException {
    String temporary = System.getenv("TMPDIR");
    Path parent =
        Path.of(
            temporary == null || temporary.isEmpty()
                ? System.getProperty("java.io.tmpdir", "/tmp")
                : temporary);
    Path directory;
    try {
      directory = Files.createTempDirectory(parent, "nbd-multiconn-").toAbsolutePath();
    } catch (IOException failure) {
      throw new IOException(
          "no directory for a private socket can be made in %s: %s; set TMPDIR to another"
              .formatted(parent, Failure.reason(failure)),
          failure);
    }
    try {
      return listenUnix(directory.resolve("socket"), exportName, List.of(OwnFile.of(directory)));
    } catch (IOException failure) {
      Files.deleteIfExists(directory);
      throw failure;
    }
  }
}
