package nbd.client;

import java.io.IOException;
import java.time.Duration;
import java.util.List;
import nbd.protocol.WireInput;
import nbd.storage.ListedExport;
import nbd.testing.MemorySocket;

/** A client on a socket in memory, whose other end may say anything. */
public final class FuzzedClient implements AutoCloseable {
  private static final Duration HANG = Duration.ofMinutes(2);
  private static final NbdUri SERVER = NbdUri.parse("nbd://server.invalid/disk");

  private final NbdClient client;
  private final Thread reader;

  private FuzzedClient(NbdClient client) {
    this.client = client;
    this.reader = client.start();
  }

  private static Negotiation negotiation(MemorySocket socket) {
    Wire wire = new Wire(socket);
    return new Negotiation(wire, new WireInput(wire, Connector.INPUT_BYTES), SERVER);
  }

  /** Lists the exports. */
  public static List<ListedExport> list(MemorySocket socket) throws IOException {
    return negotiation(socket).list();
  }

  /** Lists the contexts of an export. */
  public static List<String> contexts(MemorySocket socket) throws IOException {
    return negotiation(socket).listContexts();
  }

  /** Opens an export. */
  public static FuzzedClient open(MemorySocket socket) throws IOException {
    Negotiation talk = negotiation(socket);
    ExportInfo export = talk.open();
    return new FuzzedClient(new NbdClient("server", talk.wire, talk.in, export, Duration.ZERO));
  }

  /** Returns the client under test. */
  public NbdClient client() {
    return client;
  }

  /** Ends the connection; its thread has to end, too. */
  @Override
  public void close() {
    client.close();
    try {
      if (!reader.join(HANG)) {
        throw new AssertionError("the thread that reads goes on");
      }
    } catch (InterruptedException interrupted) {
      throw new AssertionError(interrupted);
    }
  }
}
