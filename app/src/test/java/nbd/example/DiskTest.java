package nbd.example;

// tag::junit[]
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.client.ClientSettings;
import nbd.client.NbdClient;
import nbd.client.NbdUri;
import nbd.memory.MemoryBackend;
import nbd.protocol.CommandFlags;
import nbd.server.NbdServer;
import org.junit.jupiter.api.AutoClose;
import org.junit.jupiter.api.Test;

class DiskTest {
  @AutoClose private final NbdServer server = NbdServer.of(new MemoryBackend(1 << 20)).start();

  @Test
  void whatOneConnectionHasWrittenAnotherReads() throws IOException {
    try (NbdClient writer = connect();
        NbdClient reader = connect()) {
      writer.write(ByteBuffer.allocate(512).put(0, (byte) 7), 0, CommandFlags.NONE);
      writer.flush();
      ByteBuffer read = ByteBuffer.allocate(512);
      reader.read(read, 0);
      assertEquals(7, read.get(0));
    }
  }

  private NbdClient connect() throws IOException {
    NbdUri uri = NbdUri.parse(server.uri().toString());
    return NbdClient.connect(uri, uri.exportName(), ClientSettings.DEFAULT);
  }
}
// end::junit[]
