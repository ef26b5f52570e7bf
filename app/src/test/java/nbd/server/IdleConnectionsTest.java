package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.lang.management.BufferPoolMXBean;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import nbd.memory.NullBackend;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The memory of many connections that are idle. */
@Timeout(300)
final class IdleConnectionsTest {
  private static final int COUNT = 512;

  /** Room for the first connections' buffers, and 16 KiB for each connection. */
  private static final long BOUND = (4L << 20) + COUNT * (16L << 10);

  @Test
  void eachOfManyKeepsLittleMemory() throws Exception {
    List<RawClient> clients = new ArrayList<>();
    long before = directBytes();
    try (TestServer server = TestServer.with(new NullBackend(1 << 20)).start()) {
      for (int i = 0; i < COUNT; i++) {
        clients.add(server.client().flush());
      }
      assertThat(directBytes() - before).isLessThan(BOUND);
      for (RawClient client : clients) {
        client.flush().disconnect();
        client.close();
      }
    }
  }

  private static long directBytes() {
    return ManagementFactory.getPlatformMXBeans(BufferPoolMXBean.class).stream()
        .filter(pool -> pool.getName().equals("direct"))
        .mapToLong(BufferPoolMXBean::getMemoryUsed)
        .sum();
  }
}
