package nbd.testing;

import java.io.IOException;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

/**
 * A cable to a server for each connection, which can be cut. The cables are numbered as they are
 * connected, from 0.
 */
public final class Relay implements AutoCloseable {
  private final Path directory;
  private final SocketAddress server;
  private final ServerSocketChannel listener;
  private final List<Cable> cables = new CopyOnWriteArrayList<>();

  private record Cable(SocketChannel client, SocketChannel server) {
    void cut() {
      for (SocketChannel end : List.of(client, server)) {
        try {
          end.close();
        } catch (IOException ignored) {
          // It is cut all the same.
        }
      }
    }
  }

  private Relay(SocketAddress server) throws IOException {
    this.server = server;
    directory = Files.createTempDirectory("nbd-relay-");
    listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    listener.bind(UnixDomainSocketAddress.of(directory.resolve("socket")));
    Thread.ofVirtual().name("relay").start(this::accept);
  }

  /** Lays cables to a server. */
  public static Relay to(SocketAddress server) throws IOException {
    return new Relay(server);
  }

  private void accept() {
    try {
      while (true) {
        SocketChannel client = listener.accept();
        Cable cable = new Cable(client, SocketChannel.open(server));
        cables.add(cable);
        Thread.ofVirtual().start(() -> carry(cable.client(), cable.server(), cable));
        Thread.ofVirtual().start(() -> carry(cable.server(), cable.client(), cable));
      }
    } catch (IOException closed) {
      cables.forEach(Cable::cut);
    }
  }

  private static void carry(SocketChannel from, SocketChannel to, Cable cable) {
    ByteBuffer bytes = ByteBuffer.allocateDirect(1 << 16);
    try {
      while (from.read(bytes.clear()) >= 0) {
        bytes.flip();
        while (bytes.hasRemaining()) {
          to.write(bytes);
        }
      }
      to.shutdownOutput();
    } catch (IOException broken) {
      cable.cut();
    }
  }

  /** Where clients connect. */
  public String uri(String export) {
    return "nbd+unix:///" + export + "?socket=" + directory.resolve("socket");
  }

  /** How many cables there have been. */
  public int cables() {
    return cables.size();
  }

  /** Cuts a cable; both ends see that. */
  public void cut(int number) {
    cables.get(number).cut();
  }

  @Override
  public void close() throws IOException {
    listener.close();
    cables.forEach(Cable::cut);
    Files.deleteIfExists(directory.resolve("socket"));
    Files.deleteIfExists(directory);
  }
}
