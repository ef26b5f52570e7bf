package nbd.cli;

import java.io.IOException;
import java.net.SocketAddress;
import java.net.SocketOption;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.channels.spi.SelectorProvider;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import nbd.client.NbdUri;
import nbd.memory.NullBackend;
import nbd.server.Exports;
import nbd.server.Server;
import nbd.server.TlsPolicy;

/** A server in a process of its own with two sockets; accepting on the second one fails. */
public final class ServiceProbe {
  private ServiceProbe() {}

  /**
   * Serves until accepting fails.
   *
   * @param arguments the pid file; the class of what accepting throws; a command to run, or nothing
   */
  public static void main(String[] arguments) {
    Path pid = Path.of(arguments[0]);
    ExitStatus.exitAfter(
        () -> {
          Exports exports = new Exports(new NullBackend(512), List.of(""), "", false, 0);
          Service service =
              new Service(
                  CompletableFuture.completedFuture(null),
                  exports,
                  channels ->
                      new Server(
                          channels,
                          exports,
                          Duration.ofSeconds(1),
                          Server.MINIMUM_MEMORY,
                          TlsPolicy.OFF),
                  Optional.empty(),
                  Optional.of(new PidFile(pid)),
                  Optional.empty(),
                  ServiceManager.of(Map.of()));
          Error failure =
              Class.forName(arguments[1])
                  .asSubclass(Error.class)
                  .getDeclaredConstructor()
                  .newInstance();
          Listening failing =
              Listening.own(
                  new Failing(failure), NbdUri.unix(pid, ""), Optional.empty(), List.of());
          ServerSocketChannel working = ServerSocketChannel.open().bind(null);
          Listening first =
              Listening.own(working, NbdUri.unix(pid, ""), Optional.empty(), List.of());
          return arguments.length > 2
              ? service.serveCommand(arguments[2], _ -> List.of(first, failing))
              : service.serve(_ -> List.of(first, failing), true);
        });
  }

  private static final class Failing extends ServerSocketChannel {
    private final Error failure;

    Failing(Error failure) {
      super(SelectorProvider.provider());
      this.failure = failure;
    }

    @Override
    public SocketChannel accept() {
      throw failure;
    }

    @Override
    public ServerSocketChannel bind(SocketAddress local, int backlog) {
      throw new UnsupportedOperationException();
    }

    @Override
    public <T> ServerSocketChannel setOption(SocketOption<T> name, T value) {
      throw new UnsupportedOperationException();
    }

    @Override
    public <T> T getOption(SocketOption<T> name) {
      throw new UnsupportedOperationException();
    }

    @Override
    public Set<SocketOption<?>> supportedOptions() {
      return Set.of();
    }

    @Override
    public java.net.ServerSocket socket() {
      throw new UnsupportedOperationException();
    }

    @Override
    public SocketAddress getLocalAddress() {
      throw new UnsupportedOperationException();
    }

    @Override
    protected void implCloseSelectableChannel() throws IOException {}

    @Override
    protected void implConfigureBlocking(boolean block) {}
  }
}
