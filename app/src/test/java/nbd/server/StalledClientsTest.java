package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.memory.MemoryBackend;
import nbd.storage.Backend;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import nbd.transmission.Admission;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Clients that stall in payloads or never read their replies hold others up for moments at most.
 */
@Timeout(300)
final class StalledClientsTest {
  private static final int LONGEST = 32 << 20;
  private static final long BUDGETS = 64 << 20;
  private static final long SHARED = BUDGETS + Admission.MINIMUM_BYTES;

  /** A patience of a few intervals between two searches for stalled clients. */
  private static final Duration SHORT = Duration.ofSeconds(3);

  private static final Duration NEVER = Duration.ofDays(1);

  private static TestServer server(Backend backend, Duration patience) throws IOException {
    return TestServer.with(backend).memory(new Admission(SHARED, patience)).start();
  }

  /** Connects clients that each ask for much more than they take. */
  private static void greedy(TestServer server, int count, List<RawClient> clients)
      throws IOException {
    for (int i = 0; i < count; i++) {
      RawClient client = server.client();
      clients.add(client);
      for (int n = 0; n < 20; n++) {
        client.request(0, RawClient.READ, n, 0, LONGEST);
      }
    }
  }

  /** Connects clients that each announce a long payload and send so many bytes of it. */
  private static void stalling(TestServer server, int count, int bytes, List<RawClient> clients)
      throws IOException {
    byte[] payload = Bytes.random(1, bytes);
    for (int i = 0; i < count; i++) {
      RawClient client = server.client();
      clients.add(client);
      client.request(0, RawClient.WRITE, 1, 0, LONGEST, payload);
    }
  }

  private static void leave(List<RawClient> clients) throws IOException {
    for (RawClient client : clients) {
      client.close();
    }
  }

  /** Writes and reads data of many lengths, and checks it. */
  private static void worksWell(CheckedClient client) throws IOException {
    for (int length : new int[] {1, 4096, 100_000, 256 << 10, 1 << 20, (3 << 20) + 5, LONGEST}) {
      byte[] data = Bytes.random(length, length);
      client.write(77, data);
      assertThat(CheckedClient.isRange(client.read(77, length), data, 0)).isTrue();
      assertThat(client.status(0, 77, length)).isNotEmpty();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void manyWhoNeverReadAndManyWhoStallInAPayloadDisturbNobody(Replies replies) throws Exception {
    List<RawClient> bad = new ArrayList<>();
    try (TestServer server = server(new MemoryBackend(2 * LONGEST), SHORT);
        CheckedClient good = server.enter(replies)) {
      greedy(server, 10, bad);
      stalling(server, 20, 1 << 20, bad);
      Eventually.isTrue("they hold memory", () -> server.server().memoryInFlight() > 20 << 20);
      worksWell(good);
      // The shared bytes, and those that each connection may have of its own.
      long most = SHARED + 32L * Admission.OWN_BYTES;
      assertThat(server.server().memoryInFlight()).isLessThanOrEqualTo(most);
      good.disconnect();
      leave(bad);
      server.awaitHandles(1);
    }
  }

  /** Storage that answers nothing at once: everything takes the slow way. */
  @Test
  void whatTakesTheSlowWayIsNotDisturbedEither() throws Exception {
    List<RawClient> bad = new ArrayList<>();
    try (TestServer server = server(new FakeBackend(2 * LONGEST), SHORT);
        RawClient simple = server.client();
        CheckedClient good = server.enter(Replies.STRUCTURED)) {
      greedy(server, 10, bad);
      stalling(server, 20, 100_000, bad);
      worksWell(good);
      byte[] data = Bytes.random(2, 5 << 20);
      simple.write(3, data);
      assertThat(simple.read(3, 5 << 20)).isEqualTo(data);
      good.disconnect();
      simple.disconnect();
      leave(bad);
      server.awaitHandles(1);
    }
  }

  /** The stalled clients have taken all memory: to disconnect them is the last resort. */
  @Test
  void whoHoldsTheLastMemoryWithoutSendingIsCutWhenOthersNeedIt() throws Exception {
    List<RawClient> bad = new ArrayList<>();
    byte[] before = Bytes.random(3, 4 << 20);
    try (TestServer server = server(new MemoryBackend(2 * LONGEST), SHORT);
        RawClient good = server.client()) {
      good.write(0, before);
      stalling(server, 6, LONGEST - 1, bad);
      Eventually.isTrue(
          "all is taken", () -> server.server().memoryInFlight() >= BUDGETS / 2 + (1 << 20));
      assertThat(good.read(0, before.length)).as("nothing was written in part").isEqualTo(before);
      byte[] data = Bytes.random(4, LONGEST);
      good.write(0, data);
      assertThat(good.read(0, LONGEST)).isEqualTo(data);
      good.disconnect();
      leave(bad);
      server.awaitHandles(1);
    }
  }

  /** Two stall, a third one sends just enough not to be silent. */
  @Test
  void whoDribblesDoesNotKeepOthersFromWriting() throws Exception {
    List<RawClient> bad = new ArrayList<>();
    try (TestServer server =
            TestServer.with(new MemoryBackend(2 * LONGEST))
                .memory(new Admission(Admission.MINIMUM_BYTES, SHORT))
                .start();
        RawClient good = server.client()) {
      stalling(server, 3, 100_000, bad);
      Eventually.isTrue("one holds all", () -> server.memoryInFlight() >= LONGEST);
      AtomicBoolean done = new AtomicBoolean();
      Thread dribbling =
          Thread.ofVirtual()
              .start(
                  () -> {
                    try {
                      while (!done.get()) {
                        bad.getLast().send(new byte[1000]);
                        Thread.sleep(20);
                      }
                    } catch (IOException | InterruptedException cut) {
                      // The server has disconnected the client.
                    }
                  });
      byte[] data = Bytes.random(5, 1 << 20);
      for (int i = 0; i < 3; i++) {
        good.write(i, data);
      }
      done.set(true);
      dribbling.join();
      assertThat(good.read(2, data.length)).isEqualTo(data);
      good.disconnect();
      leave(bad);
      server.awaitHandles(1);
    }
  }

  @Test
  void manyLongWritesAtATimeAllEndWithLittleMemory() throws Exception {
    int writers = 12;
    int rounds = 3;
    AtomicInteger done = new AtomicInteger();
    try (TestServer server =
        TestServer.with(new MemoryBackend((long) writers * LONGEST))
            .memory(new Admission(Admission.MINIMUM_BYTES, NEVER))
            .start()) {
      List<Thread> threads = new ArrayList<>();
      for (int i = 0; i < writers; i++) {
        long offset = (long) i * LONGEST;
        int length = LONGEST / 4 + i * 1000;
        byte[] data = Bytes.random(i, length);
        threads.add(
            Thread.ofVirtual()
                .start(
                    () -> {
                      try (RawClient client = server.client()) {
                        for (int n = 0; n < rounds; n++) {
                          client.write(offset, data);
                        }
                        if (java.util.Arrays.equals(client.read(offset, length), data)) {
                          done.incrementAndGet();
                        }
                      } catch (IOException failure) {
                        throw new java.io.UncheckedIOException(failure);
                      }
                    }));
      }
      for (Thread thread : threads) {
        thread.join();
      }
      assertThat(done.get()).isEqualTo(writers);
    }
  }
}
