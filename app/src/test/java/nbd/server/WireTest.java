package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.channels.SocketChannel;
import nbd.storage.BufferPool;
import org.junit.jupiter.api.Test;

/** The channels to which a connection's bytes go. */
final class WireTest {
  /** A file's data leaves by sendfile only if the kernel's own socket is given to it. */
  @Test
  void withoutTlsRepliesGoToTheSocketItself() throws IOException {
    try (SocketChannel socket = SocketChannel.open()) {
      assertThat(new Wire(socket, socket, new BufferPool(1 << 20), 1 << 12).out()).isSameAs(socket);
    }
  }
}
