package nbd.client;

import java.io.IOException;
import java.time.Duration;
import java.util.List;
import nbd.protocol.WireInput;
import nbd.storage.ListedExport;
import nbd.testing.MemorySocket;

/** The client on a socket in memory, whose other end may say anything. */
public final class FuzzedClient implements AutoCloseable {
  private static final Duration HANG = Duration.ofSeconds(20);
  private static final int INPUT_BYTES = 36 << 10;
  private static final NbdUri SERVER = NbdUri.parse("nbd://server.invalid/disk");

  private final NbdClient client;
  private final Thread reader;

  private FuzzedClient(NbdClient client, Thread reader) {
    this.client = client;
    this.reader = reader;
  }

  private static Negotiation negotiation(MemorySocket socket, ClientSettings settings) {
    Wire wire = new Wire(socket);
    return new Negotiation(wire, new WireInput(wire, INPUT_BYTES), SERVER, settings);
  }

  /** Names the exports. */
  public static List<ListedExport> list(MemorySocket socket, ClientSettings settings)
      throws IOException {
    return negotiation(socket, settings).list();
  }

  /** Names the contexts of an export. */
  public static List<String> contexts(MemorySocket socket, ClientSettings settings)
      throws IOException {
    return negotiation(socket, settings).listContexts("disk");
  }

  /** Opens an export. */
  public static FuzzedClient open(MemorySocket socket, ClientSettings settings) throws IOException {
    Wire wire = new Wire(socket);
    WireInput in = new WireInput(wire, INPUT_BYTES);
    ExportInfo export = new Negotiation(wire, in, SERVER, settings).open("disk");
    Link link = new Link("server", wire, Duration.ZERO);
    SendQueue queue = new SendQueue(wire, link, export.extendedHeaders());
    Thread reader = Thread.ofVirtual().start(new ReplyReader(link, in, export));
    return new FuzzedClient(new NbdClient(wire, link, queue, export), reader);
  }

  /** What is under test. */
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
