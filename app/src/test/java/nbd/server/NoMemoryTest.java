package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.time.Duration;
import java.util.concurrent.atomic.AtomicLong;
import nbd.memory.MemoryBackend;
import nbd.storage.Backend;
import nbd.storage.BufferPool;
import nbd.storage.DirectMemory;
import nbd.testing.Bytes;
import nbd.testing.FakeBackend;
import nbd.testing.RawClient;
import nbd.transmission.Admission;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** A server whose JVM has no memory left outside the heap, and which answers every request. */
@Timeout(300)
final class NoMemoryTest {
  private static final int SIZE = 4 << 20;
  private static final int ENOMEM = 12;
  private static final long LIMIT = 1L << 30;

  private final AtomicLong used = new AtomicLong(LIMIT);

  private TestServer server(Backend backend) throws Exception {
    BufferPool buffers = new BufferPool(LIMIT, new DirectMemory(LIMIT, used::get));
    return TestServer.with(backend)
        .memory(new Admission(Admission.MINIMUM_BYTES, Duration.ofSeconds(20), buffers))
        .start();
  }

  /** Storage that answers at once, and storage that takes the slow way. */
  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void everyRequestIsAnsweredAndTheConnectionGoesOnWhenThereIsMemoryAgain(boolean slow)
      throws Exception {
    try (TestServer server = server(slow ? new FakeBackend(SIZE) : new MemoryBackend(SIZE));
        RawClient client = server.client()) {
      for (int length : new int[] {4096, 65_536, 300_000, SIZE}) {
        client.call(ENOMEM, 0, RawClient.READ, 0, length);
      }
      client.call(ENOMEM, 0, RawClient.WRITE, 0, 300_000, new byte[300_000]);
      client.flush().call(RawClient.EINVAL, 0, RawClient.READ, SIZE, 1);
      used.set(0);
      byte[] data = Bytes.random(1, 300_000);
      assertThat(client.write(5, data).read(5, data.length)).isEqualTo(data);
      client.disconnect();
    }
  }

  @Test
  void newConnectionsAreGreetedAndServed() throws Exception {
    try (TestServer server = server(new FakeBackend(SIZE))) {
      for (int i = 0; i < 50; i++) {
        try (RawClient client = server.client()) {
          client.flush().disconnect();
        }
      }
    }
  }
}
