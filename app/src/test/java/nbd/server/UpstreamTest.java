package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.client.ClientSettings;
import nbd.client.NbdClient;
import nbd.client.NbdUri;
import nbd.memory.MemoryBackend;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnSettings;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Operation;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.RawClient;
import nbd.testing.Relay;
import nbd.upstream.UpstreamBackend;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The server as a proxy in front of another one of its kind. */
@Timeout(300)
final class UpstreamTest {
  private static final int BLOCK = 1000;
  private static final int BLOCKS = 300;
  private static final int ESHUTDOWN = 108;

  private static NbdUri uri(TestServer server) {
    return NbdUri.unix(((UnixDomainSocketAddress) server.address()).getPath(), "");
  }

  private static Backend upstream(TestServer server) {
    return new MultiConnFilter(
        new UpstreamBackend(uri(server), false, ClientSettings.DEFAULT), MultiConnSettings.DEFAULT);
  }

  /** Makes the content of a version of a block. */
  private static byte[] block(int number, int version) {
    byte[] block = new byte[BLOCK];
    Arrays.fill(block, (byte) (number * 31 + version));
    return block;
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3})
  void whatWasAnsweredIsThereHoweverManyAreInFlight(long seed) throws Exception {
    try (TestServer storage = TestServer.of(new MemoryBackend(BLOCK * BLOCKS));
        TestServer proxy = TestServer.of(upstream(storage));
        RawClient client = proxy.client();
        RawClient reader = proxy.client()) {
      Random random = new Random(seed);
      int[] versions = new int[BLOCKS];
      for (int round = 0; round < 20; round++) {
        Map<Long, Integer> asked = new HashMap<>();
        boolean[] used = new boolean[BLOCKS];
        int requests = 1 + random.nextInt(200);
        for (long cookie = 0; cookie < requests; cookie++) {
          int number = random.nextInt(BLOCKS);
          long offset = (long) number * BLOCK;
          if (!used[number] && random.nextBoolean()) {
            used[number] = true;
            versions[number]++;
            byte[] data = block(number, versions[number]);
            client.request(0, RawClient.WRITE, cookie, offset, BLOCK, data);
            asked.put(cookie, -1);
          } else if (!used[number]) {
            used[number] = true;
            client.request(0, RawClient.READ, cookie, offset, BLOCK);
            asked.put(cookie, number);
          }
        }
        for (int left = asked.size(); left > 0; left--) {
          Integer number = asked.remove(client.expectReply(0));
          assertThat(number).isNotNull();
          if (number >= 0) {
            assertThat(client.take(BLOCK)).isEqualTo(expected(number, versions[number]));
          }
        }
        client.flush();
        int number = random.nextInt(BLOCKS);
        assertThat(reader.read((long) number * BLOCK, BLOCK))
            .as("seed %d, on another connection", seed)
            .isEqualTo(expected(number, versions[number]));
      }
      client.disconnect();
      reader.disconnect();
    }
  }

  private static byte[] expected(int number, int version) {
    return version == 0 ? new byte[BLOCK] : block(number, version);
  }

  @Test
  void begunAndWaitingCallsShareOneConnection() throws Exception {
    try (TestServer storage = TestServer.of(new MemoryBackend(BLOCK * BLOCKS));
        NbdClient client = NbdClient.connect(uri(storage), "", ClientSettings.DEFAULT)) {
      Queue<Throwable> failures = new ConcurrentLinkedQueue<>();
      AtomicInteger ended = new AtomicInteger();
      CountDownLatch stop = new CountDownLatch(1);
      List<Thread> waiting = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        waiting.add(
            Thread.ofVirtual()
                .start(
                    () -> {
                      try {
                        while (stop.getCount() > 0) {
                          client.flush();
                          client.read(ByteBuffer.allocate(BLOCK), 0);
                        }
                      } catch (IOException | RuntimeException | Error failure) {
                        failures.add(failure);
                      }
                    }));
      }
      int calls = 20_000;
      for (int i = 0; i < calls; i++) {
        int number = i % BLOCKS;
        ByteBuffer data = ByteBuffer.wrap(block(number, 1));
        assertThat(
                client.begin(
                    Operation.write(data, (long) number * BLOCK, CommandFlags.NONE),
                    failure -> {
                      ended.incrementAndGet();
                      if (failure != null) {
                        failures.add(failure);
                      }
                    }))
            .isTrue();
        if (i % 7 == 0) {
          client.push();
        }
        if (i % 500 == 0) {
          client.push();
          int begun = i + 1;
          Eventually.isTrue("all have ended", () -> ended.get() == begun);
        }
      }
      client.push();
      Eventually.isTrue("all have ended", () -> ended.get() == calls);
      stop.countDown();
      for (Thread thread : waiting) {
        thread.join();
      }
      assertThat(failures).isEmpty();
    }
  }

  @Test
  void whenTheUpstreamBreaksEveryRequestIsAnsweredAndTheServerGoesOn() throws Exception {
    CountDownLatch never = new CountDownLatch(1);
    AtomicInteger inside = new AtomicInteger();
    FakeBackend slow =
        new FakeBackend(1 << 20)
            .hook(
                call -> {
                  if (call.command() == Command.READ && call.offset() >= 4096) {
                    inside.incrementAndGet();
                    Eventually.await(never);
                  }
                });
    try (TestServer storage = TestServer.of(slow);
        Relay relay = Relay.to(storage.address());
        TestServer proxy =
            TestServer.of(
                new UpstreamBackend(NbdUri.parse(relay.uri("")), false, ClientSettings.DEFAULT));
        RawClient client = proxy.client()) {
      storage.expectErrors();
      proxy.expectErrors();
      client.write(0, (byte) 7).flush();
      for (int i = 0; i < 20; i++) {
        client.request(0, RawClient.READ, i, 4096, 10);
      }
      Eventually.isTrue("all are upstream", () -> inside.get() == 20);
      cutAll(relay);
      for (int i = 0; i < 20; i++) {
        client.expectReply(RawClient.EIO);
      }
      client.call(ESHUTDOWN, 0, RawClient.READ, 0, 1);
      client.call(ESHUTDOWN, 0, RawClient.FLUSH, 0, 0);
      client.disconnect();
      never.countDown();
      try (RawClient other = proxy.client()) {
        assertThat(other.read(0, 1)).containsExactly(7);
        other.disconnect();
      }
      cutAll(relay);
    }
  }

  private static void cutAll(Relay relay) {
    for (int cable = 0; cable < relay.cables(); cable++) {
      relay.cut(cable);
    }
  }
}
