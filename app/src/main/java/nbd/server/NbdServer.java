package nbd.server;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.net.URI;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicBoolean;
import nbd.client.NbdUri;
import nbd.client.NbdUri.TlsParameters;
import nbd.filter.FuaFilter;
import nbd.filter.FuaMode;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnSettings;
import nbd.storage.Backend;
import nbd.storage.DirectMemory;
import nbd.storage.ThreadModel;
import nbd.threads.VirtualThreads;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * A server in a Java program of one's own, for any storage. It is what {@code serve} runs without
 * further options: clients are promised multi-conn wherever the promise can be kept.
 *
 * {@snippet :
 * try (NbdServer server = NbdServer.of(new MemoryBackend(1L << 30)).start()) {
 *   new ProcessBuilder("nbdinfo", server.uri().toString()).inheritIO().start().waitFor();
 * }
 * }
 *
 * <p>The server has a daemon thread of its own, and a virtual thread for each client; it installs
 * no signal handler, and changes no setting of the JVM. It logs with tinylog, to standard error
 * unless the program configures tinylog. All methods may be called by any thread.
 */
public final class NbdServer implements AutoCloseable {
  /** So many clients may connect at once. */
  private static final int BACKLOG = 1024;

  /** The time that clients have to take their last replies. */
  private static final Duration PATIENCE = Duration.ofSeconds(10);

  private static final Duration HANDSHAKE_TIMEOUT = Duration.ofSeconds(10);

  private final Backend storage;
  private final Listening listening;
  private final Server server;
  private final URI uri;
  private final AtomicBoolean closed = new AtomicBoolean();

  /**
   * A listening socket.
   *
   * @param files those that were made for it, in the order in which they are removed
   */
  private record Listening(ServerSocketChannel channel, NbdUri uri, List<Path> files) {}

  private NbdServer(Backend storage, Listening listening, Server server, NbdUri uri) {
    this.storage = storage;
    this.listening = listening;
    this.server = server;
    this.uri = URI.create(uri.toString());
  }

  /** The choices for a server. Without any, its export has the empty name and a private socket. */
  public static final class Builder {
    private final Backend storage;
    private @Nullable InetSocketAddress tcp;
    private @Nullable Path unix;
    private String exportName = "";
    private String description = "";
    private boolean readOnly;
    private int maxConnections;
    private TlsPolicy tls = TlsPolicy.OFF;

    private Builder(Backend storage) {
      this.storage = storage;
    }

    /** Listens on a TCP port of the loopback address; 0 for any free one. */
    public Builder tcp(int port) {
      return tcp(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
    }

    /** Listens on a TCP address; its port may be 0, for any free one. */
    public Builder tcp(InetSocketAddress address) {
      tcp = address;
      unix = null;
      return this;
    }

    /**
     * Listens on a Unix socket, which is removed at the end. Without this and {@link #tcp}, it is
     * one in a new directory that only this user can reach.
     *
     * @param path no file has this name
     */
    public Builder unix(Path path) {
      unix = path;
      tcp = null;
      return this;
    }

    /** Names the export; any other name is refused, unless the storage names its exports. */
    public Builder exportName(String name) {
      exportName = name;
      return this;
    }

    /** Describes the export to clients. */
    public Builder description(String text) {
      description = text;
      return this;
    }

    /** Refuses every writing command. */
    public Builder readOnly() {
      readOnly = true;
      return this;
    }

    /** Accepts no further client while so many are there; 0, as without this, for any number. */
    public Builder maxConnections(int most) {
      if (most < 0) {
        throw new IllegalArgumentException("maxConnections: " + most + " is negative");
      }
      maxConnections = most;
      return this;
    }

    /** Offers TLS to clients, or demands it of them. */
    public Builder tls(TlsPolicy policy) {
      tls = policy;
      return this;
    }

    /**
     * Starts the server: clients can connect when this returns.
     *
     * @return the server, which closes the storage when it is closed
     * @throws UncheckedIOException if it cannot listen, or the storage cannot say whether it names
     *     its exports; unchecked, for the initializers of fields. The storage stays open
     */
    public NbdServer start() {
      try {
        VirtualThreads.openPollers();
        boolean namesItself = storage.exports().isPresent();
        Listening listening = listen();
        try {
          return serve(listening, namesItself ? List.of() : List.of(exportName));
        } catch (RuntimeException | Error failure) {
          end(listening);
          throw failure;
        }
      } catch (IOException failure) {
        throw new UncheckedIOException(failure.getMessage(), failure);
      }
    }

    private NbdServer serve(Listening listening, List<String> names) {
      int most = storage.threadModel() == ThreadModel.SERIALIZE_CONNECTIONS ? 1 : maxConnections;
      MultiConnSettings promise =
          new MultiConnSettings(
              MultiConnSettings.DEFAULT.mode(),
              MultiConnSettings.DEFAULT.tracking(),
              MultiConnSettings.DEFAULT.byExportName(),
              most == 1);
      Backend filtered = new FuaFilter(new MultiConnFilter(storage, promise), FuaMode.PASS);
      long memory =
          Server.defaultMemory(Runtime.getRuntime().maxMemory(), DirectMemory.JVM.limit());
      Server server =
          new Server(
              ListeningSocket.own(List.of(listening.channel())),
              new Exports(filtered, names, description, readOnly, most),
              HANDSHAKE_TIMEOUT,
              memory,
              tls);
      NbdUri uri = tls.required() ? listening.uri().withTls(TlsParameters.NONE) : listening.uri();
      NbdServer started = new NbdServer(filtered, listening, server, uri);
      Thread.ofPlatform().daemon().name("accept").start(server::serve);
      return started;
    }

    private Listening listen() throws IOException {
      if (tcp != null) {
        return listenTcp(tcp);
      }
      if (unix != null) {
        return listenUnix(unix, List.of(unix));
      }
      Path directory = Files.createTempDirectory("nbd-multiconn-");
      try {
        Path socket = directory.resolve("socket");
        return listenUnix(socket, List.of(socket, directory));
      } catch (IOException failure) {
        Files.deleteIfExists(directory);
        throw failure;
      }
    }

    private Listening listenTcp(InetSocketAddress address) throws IOException {
      if (address.isUnresolved()) {
        throw new IOException("the address " + address.getHostString() + " is not known");
      }
      ServerSocketChannel channel = ServerSocketChannel.open();
      try {
        channel.setOption(StandardSocketOptions.SO_REUSEADDR, true);
        channel.bind(address, BACKLOG);
        InetSocketAddress bound = (InetSocketAddress) channel.getLocalAddress();
        NbdUri reached = NbdUri.tcp(bound.getAddress(), bound.getPort(), exportName);
        return new Listening(channel, reached, List.of());
      } catch (IOException failure) {
        channel.close();
        throw cannotListen(address, failure);
      }
    }

    private Listening listenUnix(Path path, List<Path> files) throws IOException {
      ServerSocketChannel channel = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
      try {
        channel.bind(UnixDomainSocketAddress.of(path), BACKLOG);
        return new Listening(channel, NbdUri.unix(path, exportName), files);
      } catch (IOException failure) {
        channel.close();
        throw cannotListen(path, failure);
      }
    }

    private static IOException cannotListen(Object where, IOException failure) {
      return new IOException(
          "cannot listen on %s: %s".formatted(where, failure.getMessage()), failure);
    }
  }

  /** Begins the choices for a server of this storage, which the server closes at its end. */
  public static Builder of(Backend storage) {
    return new Builder(storage);
  }

  /** Returns the URI by which clients on this machine reach the export. */
  public URI uri() {
    return uri;
  }

  /** Returns the path of the Unix socket; empty with TCP. */
  public Optional<Path> socket() {
    return listening.files().stream().findFirst();
  }

  /** Counts the clients that are connected. */
  public int connections() {
    return server.connections();
  }

  /**
   * Stops accepting, finishes the requests that clients have sent, and closes the storage. Clients
   * that do not take their last replies within ten seconds are cut. Later calls do nothing.
   *
   * @throws UncheckedIOException if the storage could not store everything
   */
  @Override
  public void close() {
    if (closed.getAndSet(true)) {
      return;
    }
    storage.stopWaiting();
    server.stop(PATIENCE);
    end(listening);
    try {
      storage.close();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure.getMessage(), failure);
    }
  }

  private static void end(Listening listening) {
    try {
      listening.channel().close();
      for (Path file : listening.files()) {
        Files.deleteIfExists(file);
      }
    } catch (IOException failure) {
      Logger.warn("the socket {} is left: {}", listening.uri(), failure.toString());
    }
  }
}
