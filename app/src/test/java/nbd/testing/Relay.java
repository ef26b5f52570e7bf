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
 * A relay between clients and a server, whose connections (cables) a test can cut. They are
 * numbered from 0, in the order in which they are accepted.
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
          // The other end is closed nevertheless.
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

  /** Starts a relay to a server. */
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

  /** Returns the URI of an export behind the relay. */
  public String uri(String export) {
    return "nbd+unix:///" + export + "?socket=" + directory.resolve("socket");
  }

  /** Returns the number of connections so far. */
  public int cables() {
    return cables.size();
  }

  /** Closes a connection at both ends. */
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
