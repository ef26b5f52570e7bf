package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.FutureTask;
import nbd.protocol.Command;
import nbd.testing.FakeBackend;
import nbd.testing.RawClient;
import nbd.threads.ConnectionThreads;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Connections that are now few enough for platform threads, and now too many. */
@Timeout(300)
final class ManyConnectionsTest {
  private static final int WRITERS = 3;
  private static final int BLOCK = 512;

  /** Requests that a writer makes on each kind of thread. */
  private static final int LEAST = 50;

  private enum Kind {
    PLATFORM,
    VIRTUAL
  }

  /** The kinds of threads that have written to each block. */
  private final List<Set<Kind>> kinds = new ArrayList<>();

  private volatile boolean done;

  @Test
  void theirThreadsChangeAndTheirRequestsDoNot() throws Exception {
    FakeBackend backend = new FakeBackend(WRITERS * BLOCK);
    backend.quick(operation -> true);
    for (int i = 0; i < WRITERS; i++) {
      kinds.add(ConcurrentHashMap.newKeySet());
    }
    backend.hook(
        call ->
            kinds
                .get((int) (call.offset() / BLOCK))
                .add(Thread.currentThread().isVirtual() ? Kind.VIRTUAL : Kind.PLATFORM),
        Command.WRITE);
    List<RawClient> idle = new ArrayList<>();
    try (TestServer server = TestServer.of(backend)) {
      // The server's witness is one more; so the first guest is the last of the few.
      for (int i = 0; i < ConnectionThreads.MOST - WRITERS - 2; i++) {
        idle.add(server.client());
      }
      List<FutureTask<Integer>> writers = new ArrayList<>();
      for (int i = 0; i < WRITERS; i++) {
        int block = i;
        RawClient client = server.client();
        FutureTask<Integer> writer = new FutureTask<>(() -> write(client, block));
        writers.add(writer);
        Thread.startVirtualThread(writer);
      }
      FutureTask<Integer> guests = new FutureTask<>(() -> comeAndGo(server));
      Thread.startVirtualThread(guests);
      for (FutureTask<Integer> writer : writers) {
        writer.get();
      }
      done = true;
      assertThat(guests.get()).isPositive();
      for (RawClient client : idle) {
        client.disconnect();
        client.close();
      }
    }
  }

  /** Writes and reads until both kinds of threads have served it. */
  private int write(RawClient client, int block) throws IOException {
    int rounds = 0;
    while (rounds < LEAST || kinds.get(block).size() < EnumSet.allOf(Kind.class).size()) {
      byte[] data = new byte[BLOCK];
      data[rounds % BLOCK] = (byte) (rounds + 1);
      client.write((long) block * BLOCK, data);
      assertThat(client.read((long) block * BLOCK, BLOCK)).isEqualTo(data);
      rounds++;
    }
    client.disconnect();
    client.close();
    return rounds;
  }

  /** Makes the connections too many, and few again. */
  private int comeAndGo(TestServer server) throws IOException {
    int times = 0;
    while (!done) {
      try (RawClient one = server.client();
          RawClient two = server.client()) {
        one.disconnect();
        two.disconnect();
      }
      times++;
    }
    return times;
  }
}
