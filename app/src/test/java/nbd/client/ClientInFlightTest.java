package nbd.client;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.params.provider.Arguments.argumentSet;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.Random;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.stream.Stream;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.storage.LostException;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.ScriptedServer;
import nbd.testing.ScriptedServer.Asked;
import nbd.testing.ScriptedServer.Peer;
import nbd.testing.ScriptedServer.Replies;
import nbd.testing.ScriptedServer.Script;
import nbd.threads.ConnectionThreads;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Many callers on one connection, and their failures when it breaks. */
@Timeout(300)
final class ClientInFlightTest {
  private static final long SIZE = 1L << 30;
  private static final int FLAGS = 0xdff;

  /** More than any socket takes before its peer reads. */
  private static final int LONG = 32 << 20;

  private static NbdClient open(ScriptedServer server) throws IOException {
    return open(server, Duration.ZERO);
  }

  private static NbdClient open(ScriptedServer server, Duration requestTimeout) throws IOException {
    ClientSettings settings = new ClientSettings(Duration.ofSeconds(10), requestTimeout);
    return NbdClient.connect(NbdUri.parse(server.uri()), "", settings);
  }

  /** Calls on threads of their own, and their failures. */
  private static final class Callers {
    private final List<Thread> threads = new ArrayList<>();
    private final Queue<Throwable> failures = new ConcurrentLinkedQueue<>();

    @FunctionalInterface
    interface Call {
      void run() throws IOException;
    }

    Thread start(Call call) {
      Thread thread =
          Thread.ofVirtual()
              .start(
                  () -> {
                    try {
                      call.run();
                    } catch (Throwable failure) {
                      failures.add(failure);
                    }
                  });
      threads.add(thread);
      return thread;
    }

    /** Starts a call, and returns when it waits for its reply, or to send. */
    Thread startAndWait(Call call) throws InterruptedException {
      Thread thread = start(call);
      Eventually.isTrue("it waits", () -> thread.getState() == Thread.State.WAITING);
      return thread;
    }

    void join() throws InterruptedException {
      for (Thread thread : threads) {
        assertThat(thread.join(Duration.ofMinutes(2))).as("it hangs").isTrue();
      }
    }

    void joinWithoutFailure() throws InterruptedException {
      join();
      assertThat(failures).isEmpty();
    }
  }

  /** Keeps the data of writes, and answers the requests in random order and pieces. */
  private static void serve(Peer client, Replies replies, long seed, byte[] content)
      throws IOException {
    Random random = new Random(seed);
    BlockingQueue<Asked> asked = new LinkedBlockingQueue<>();
    Thread.ofPlatform()
        .daemon()
        .start(
            () -> {
              try {
                Asked one;
                do {
                  one = client.request();
                  asked.add(one);
                } while (one.type() != 2);
              } catch (IOException failure) {
                throw new UncheckedIOException(failure);
              }
            });
    List<Asked> waiting = new ArrayList<>();
    boolean left = false;
    while (!left || !waiting.isEmpty()) {
      if (waiting.isEmpty()) {
        waiting.add(next(asked));
      }
      asked.drainTo(waiting);
      left |= waiting.removeIf(one -> one.type() == 2);
      if (!waiting.isEmpty()) {
        answer(client, replies, random, waiting.remove(random.nextInt(waiting.size())), content);
      }
    }
  }

  private static Asked next(BlockingQueue<Asked> asked) {
    try {
      return asked.take();
    } catch (InterruptedException interrupted) {
      throw new AssertionError(interrupted);
    }
  }

  private static void answer(
      Peer client, Replies replies, Random random, Asked asked, byte[] content) throws IOException {
    int offset = (int) asked.offset();
    int length = (int) asked.length();
    if (asked.type() == 1) {
      asked.payload().get(content, offset, length);
      client.done(asked);
    } else if (asked.type() != 0) {
      client.done(asked);
    } else if (replies == Replies.SIMPLE) {
      client.data(asked, java.util.Arrays.copyOfRange(content, offset, offset + length));
    } else {
      int middle = random.nextInt(length + 1);
      List<int[]> parts =
          new ArrayList<>(List.of(new int[] {0, middle}, new int[] {middle, length}));
      java.util.Collections.shuffle(parts, random);
      for (int[] part : parts) {
        if (part[0] < part[1]) {
          byte[] data = java.util.Arrays.copyOfRange(content, offset + part[0], offset + part[1]);
          client.chunk(
              asked, false, 1, Bytes.of().u64(asked.offset() + part[0]).raw(data).toArray());
        }
      }
      client.chunk(asked, true, 0);
    }
  }

  /** The second round finds as many, so a connection that ends gives its thread back. */
  @Test
  void platformThreadsReadTheRepliesOfALimitedNumberOfConnections() throws Exception {
    Script script =
        client -> {
          client.open(Replies.SIMPLE, SIZE, FLAGS);
          client.awaitEnd();
        };
    try (ScriptedServer server = ScriptedServer.always(script)) {
      long before = 1;
      for (int round = 0; round < 2; round++) {
        List<NbdClient> clients = new ArrayList<>();
        for (int i = 0; i < ConnectionThreads.MOST + 2; i++) {
          clients.add(open(server));
        }
        long readers = platformReaders(server);
        assertThat(readers).isBetween(before, (long) ConnectionThreads.MOST);
        before = readers;
        clients.forEach(NbdClient::close);
        Eventually.isTrue("the readers end", () -> platformReaders(server) == 0);
      }
    }
  }

  private static long platformReaders(ScriptedServer server) {
    return Thread.getAllStackTraces().keySet().stream()
        .filter(thread -> thread.getName().equals("replies of " + server.uri()))
        .count();
  }

  @ParameterizedTest
  @EnumSource
  void everyCallerGetsItsOwnReplyInAnyOrder(Replies replies) throws Exception {
    long seed = Long.getLong("nbd.seed", new Random().nextLong());
    int callers = 8;
    int area = 300_000;
    byte[] content = new byte[callers * area];
    Script script =
        client -> {
          client.open(replies, content.length, FLAGS);
          serve(client, replies, seed, content);
        };
    try (ScriptedServer server = ScriptedServer.of(script)) {
      Callers all = new Callers();
      try (NbdClient client = open(server)) {
        for (int i = 0; i < callers; i++) {
          Random random = new Random(seed + 1 + i);
          int base = i * area;
          all.start(() -> readAndWrite(client, random, base, area, seed));
        }
        all.joinWithoutFailure();
      }
    }
  }

  /** Writes and reads a caller's own part of the export, and compares each read with a model. */
  private static void readAndWrite(NbdClient client, Random random, int base, int area, long seed)
      throws IOException {
    byte[] model = new byte[area];
    for (int i = 0; i < 200; i++) {
      int length = 1 + (random.nextInt(10) == 0 ? random.nextInt(200_000) : random.nextInt(5000));
      int offset = random.nextInt(area - length + 1);
      boolean direct = random.nextBoolean();
      ByteBuffer buffer = direct ? ByteBuffer.allocateDirect(length) : ByteBuffer.allocate(length);
      switch (random.nextInt(5)) {
        case 0, 1 -> {
          byte[] data = new byte[length];
          random.nextBytes(data);
          System.arraycopy(data, 0, model, offset, length);
          client.write(buffer.put(data).flip(), base + offset, CommandFlags.NONE);
        }
        case 2, 3 -> {
          client.read(buffer, base + offset);
          assertThat(buffer.flip().equals(ByteBuffer.wrap(model, offset, length)))
              .as("seed %d: %d bytes at %d", seed, length, base + offset)
              .isTrue();
        }
        default -> client.flush();
      }
    }
  }

  @Test
  void requestsThatAreQueuedWhileAThreadSendsLeaveTogether() throws Exception {
    int others = 150;
    CountDownLatch queued = new CountDownLatch(1);
    CountDownLatch leaderDone = new CountDownLatch(1);
    Script script =
        client -> {
          client.open(Replies.SIMPLE, SIZE, FLAGS).await(queued);
          client.done(client.request());
          List<Asked> asked = new ArrayList<>();
          for (int i = 0; i < others; i++) {
            asked.add(client.request());
          }
          for (Asked one : asked.reversed()) {
            if (one.type() == 0) {
              client.data(one, Bytes.random(one.offset(), 10));
            } else {
              assertThat(one.payload().array()).isEqualTo(Bytes.random(one.offset(), 10));
              client.done(one);
            }
          }
          client.awaitEnd();
        };
    try (ScriptedServer server = ScriptedServer.of(script)) {
      Callers callers = new Callers();
      try (NbdClient client = open(server)) {
        callers.startAndWait(
            () -> {
              client.write(ByteBuffer.allocateDirect(LONG), 0, CommandFlags.NONE);
              leaderDone.countDown();
            });
        for (int i = 0; i < others; i++) {
          long offset = 10L * i;
          boolean write = i % 3 == 0;
          callers.startAndWait(
              () -> {
                ByteBuffer buffer = ByteBuffer.allocate(10);
                if (write) {
                  buffer.put(Bytes.random(offset, 10)).flip();
                  client.write(buffer, offset, CommandFlags.NONE);
                } else {
                  client.read(buffer, offset);
                  assertThat(buffer.array()).isEqualTo(Bytes.random(offset, 10));
                }
              });
        }
        queued.countDown();
        Eventually.await(leaderDone);
        callers.joinWithoutFailure();
      }
    }
  }

  /**
   * The server answers the leader's request with an error before it has taken all of it, and takes
   * the other requests only when the leader has left.
   */
  @Test
  void aLeaderWhoseRequestIsDoneHandsOver() throws Exception {
    int others = 16;
    CountDownLatch queued = new CountDownLatch(1);
    CountDownLatch answerTaken = new CountDownLatch(1);
    CountDownLatch leaderLeft = new CountDownLatch(1);
    Script script =
        client -> {
          client.open(Replies.SIMPLE, SIZE, FLAGS);
          Asked flush = client.request();
          ByteBuffer header = client.take(28);
          Asked first = new Asked(0, 1, header.getLong(8), 0, LONG, ByteBuffer.allocate(0));
          // The client takes replies in order: after the second it has the first, too.
          client.await(queued).simple(first, 28).done(flush).await(answerTaken).take(LONG);
          client.await(leaderLeft);
          for (int i = 0; i < others; i++) {
            client.done(client.request());
          }
          client.awaitEnd();
        };
    try (ScriptedServer server = ScriptedServer.of(script)) {
      Callers callers = new Callers();
      ByteBuffer data = ByteBuffer.allocateDirect(LONG);
      try (NbdClient client = open(server)) {
        callers.startAndWait(
            () -> {
              client.flush();
              answerTaken.countDown();
            });
        Thread leader =
            callers.startAndWait(
                () ->
                    assertThatThrownBy(() -> client.write(data.duplicate(), 0, CommandFlags.NONE))
                        .hasMessageContaining("ENOSPC"));
        for (int i = 0; i < others; i++) {
          callers.startAndWait(() -> client.write(data.duplicate(), 0, CommandFlags.NONE));
        }
        queued.countDown();
        assertThat(leader.join(Duration.ofMinutes(2))).as("the leader left").isTrue();
        leaderLeft.countDown();
        callers.joinWithoutFailure();
      }
    }
  }

  @Test
  void aBufferIsNotGivenBackBeforeItIsSent() throws Exception {
    CountDownLatch answerTaken = new CountDownLatch(1);
    CountDownLatch checked = new CountDownLatch(1);
    Script script =
        client -> {
          client.open(Replies.SIMPLE, SIZE, FLAGS);
          Asked flush = client.request();
          ByteBuffer header = client.take(28);
          Asked early = new Asked(0, 1, header.getLong(8), 0, LONG, ByteBuffer.allocate(0));
          client.simple(early, 0).done(flush);
          client.await(checked).take(LONG);
          client.awaitEnd();
        };
    try (ScriptedServer server = ScriptedServer.of(script)) {
      Callers callers = new Callers();
      try (NbdClient client = open(server)) {
        callers.startAndWait(
            () -> {
              client.flush();
              answerTaken.countDown();
            });
        Thread writer =
            callers.startAndWait(
                () -> client.write(ByteBuffer.allocateDirect(LONG), 0, CommandFlags.NONE));
        Eventually.await(answerTaken);
        assertThat(writer.join(Duration.ofMillis(50))).as("it has left").isFalse();
        checked.countDown();
        callers.joinWithoutFailure();
      }
    }
  }

  static Stream<Arguments> ends() {
    return Stream.of(
        argumentSet("while it waits", (Script) Peer::request, "the server closed the connection"),
        argumentSet(
            "in a header",
            (Script)
                c -> {
                  c.request();
                  c.send(Bytes.of().u32(0x67446698));
                },
            "in the middle of a reply"),
        argumentSet(
            "in the data",
            (Script)
                c -> {
                  Asked asked = c.request();
                  c.simple(asked, 0, new byte[99]);
                },
            "in the middle of a reply"));
  }

  @ParameterizedTest
  @MethodSource
  void ends(Script end, String message) throws Exception {
    CountDownLatch waiting = new CountDownLatch(1);
    Script script =
        client -> {
          client.open(Replies.SIMPLE, SIZE, FLAGS).await(waiting).take(4 * 28);
          end.play(client);
        };
    try (ScriptedServer server = ScriptedServer.of(script)) {
      Callers callers = new Callers();
      try (NbdClient client = open(server)) {
        for (int i = 0; i < 5; i++) {
          callers.startAndWait(() -> client.read(ByteBuffer.allocateDirect(100), 0));
        }
        waiting.countDown();
        callers.join();
        assertThat(callers.failures)
            .hasSize(5)
            .allSatisfy(
                failure ->
                    assertThat(failure)
                        .isInstanceOfSatisfying(
                            LostException.class,
                            lost -> assertThat(lost.error()).isEqualTo(NbdError.EIO))
                        .hasMessageStartingWith(server.uri() + ": ")
                        .hasMessageContaining(message));
        assertThatThrownBy(() -> client.cache(0, 1))
            .isInstanceOfSatisfying(
                LostException.class, lost -> assertThat(lost.error()).isEqualTo(NbdError.ESHUTDOWN))
            .hasMessageContaining(message);
      }
    }
  }

  @Test
  void aConnectionThatEndsWhileAThreadSendsFailsAllQueuedRequests() throws Exception {
    CountDownLatch queued = new CountDownLatch(1);
    Script script = client -> client.open(Replies.SIMPLE, SIZE, FLAGS).await(queued);
    try (ScriptedServer server = ScriptedServer.of(script)) {
      Callers callers = new Callers();
      try (NbdClient client = open(server)) {
        for (int i = 0; i < 100; i++) {
          callers.startAndWait(
              () -> client.write(ByteBuffer.allocateDirect(LONG / 4), 0, CommandFlags.NONE));
        }
        queued.countDown();
        callers.join();
        assertThat(callers.failures)
            .hasSize(100)
            .allSatisfy(failure -> assertThat(failure).isInstanceOf(LostException.class));
      }
    }
  }

  @Test
  void aServerThatIsSilentWhileAReplyIsDueIsGivenUp() throws Exception {
    try (ScriptedServer server =
            ScriptedServer.of(
                client -> {
                  client.open(Replies.SIMPLE, SIZE, FLAGS);
                  client.done(client.request()).awaitEnd();
                });
        NbdClient client = open(server, Duration.ofSeconds(3))) {
      client.flush();
      assertThatThrownBy(client::flush)
          .isInstanceOf(LostException.class)
          .hasMessage(server.uri() + ": the server has sent nothing for 3 s while a reply was due");
    }
  }

  @Test
  void aServerThatTakesNothingIsGivenUp() throws Exception {
    CountDownLatch end = new CountDownLatch(1);
    try (ScriptedServer server =
            ScriptedServer.of(client -> client.open(Replies.SIMPLE, SIZE, FLAGS).await(end));
        NbdClient client = open(server, Duration.ofMillis(100))) {
      assertThatThrownBy(() -> client.write(ByteBuffer.allocateDirect(LONG), 0, CommandFlags.NONE))
          .isInstanceOf(LostException.class)
          .hasMessageContaining("sent nothing for 100 ms");
      end.countDown();
    }
  }

  @Test
  void anUnusedConnectionIsNotGivenUp() throws Exception {
    Script silent = client -> client.open(Replies.SIMPLE, SIZE, FLAGS).awaitEnd();
    Script idle =
        client -> {
          client.open(Replies.SIMPLE, SIZE, FLAGS);
          client.done(client.request());
          assertThat(client.request().type()).isEqualTo(2);
        };
    try (ScriptedServer idling = ScriptedServer.of(idle);
        ScriptedServer silenced = ScriptedServer.of(silent);
        NbdClient quiet = open(idling, Duration.ofSeconds(3))) {
      // The other connection is given up first, though its timeout is longer.
      try (NbdClient client = open(silenced, Duration.ofMillis(3500))) {
        assertThatThrownBy(client::flush).isInstanceOf(LostException.class);
      }
      quiet.flush();
    }
  }

  @Test
  void closingFailsCallsInFlightAndLaterOnes() throws Exception {
    try (ScriptedServer server =
        ScriptedServer.of(
            client -> {
              client.open(Replies.SIMPLE, SIZE, FLAGS);
              assertThat(client.request().type()).isEqualTo(3);
              assertThat(client.request().type()).as("goodbye").isEqualTo(2);
            })) {
      Callers callers = new Callers();
      NbdClient client = open(server);
      callers.startAndWait(client::flush);
      client.close();
      client.close();
      callers.join();
      assertThat(callers.failures)
          .singleElement()
          .satisfies(
              failure ->
                  assertThat(failure)
                      .isInstanceOf(LostException.class)
                      .hasMessageContaining("was closed here"));
      assertThatThrownBy(client::flush)
          .isInstanceOfSatisfying(
              LostException.class, lost -> assertThat(lost.error()).isEqualTo(NbdError.ESHUTDOWN));
    }
  }

  @Test
  void cuttingFailsCallsInFlightAndSaysNoGoodbye() throws Exception {
    try (ScriptedServer server =
        ScriptedServer.of(
            client -> {
              client.open(Replies.SIMPLE, SIZE, FLAGS);
              assertThat(client.request().type()).isEqualTo(3);
              assertThatThrownBy(client::request).isInstanceOf(IOException.class);
            })) {
      Callers callers = new Callers();
      NbdClient client = open(server);
      callers.startAndWait(client::flush);
      client.cut();
      client.close();
      callers.join();
      assertThat(callers.failures)
          .singleElement()
          .satisfies(failure -> assertThat(failure).hasMessageContaining("was cut here"));
    }
  }

  @Test
  void closingDoesNotWaitForAServerThatTakesNothing() throws Exception {
    CountDownLatch end = new CountDownLatch(1);
    try (ScriptedServer server =
        ScriptedServer.of(client -> client.open(Replies.SIMPLE, SIZE, FLAGS).await(end))) {
      Callers callers = new Callers();
      NbdClient client = open(server);
      callers.startAndWait(
          () -> client.write(ByteBuffer.allocateDirect(LONG), 0, CommandFlags.NONE));
      client.close();
      callers.join();
      assertThat(callers.failures).hasSize(1);
      end.countDown();
    }
  }

  @Test
  void manyOpenAndCloseWithoutLeavingAThread() throws Exception {
    try (ScriptedServer server =
        ScriptedServer.of(
            ScriptedServer.times(
                200, client -> client.open(Replies.EXTENDED, SIZE, FLAGS).awaitEnd()))) {
      for (int i = 0; i < 200; i++) {
        try (NbdClient client = open(server, Duration.ofHours(1))) {
          assertThat(client.export().size()).isEqualTo(SIZE);
        }
      }
    }
  }

  /** A buffer whose memory has been freed stands for any Error, such as too little memory. */
  @Test
  void anErrorInTheThreadThatSendsLeavesNoCallerWaiting() throws Exception {
    try (ScriptedServer server =
        ScriptedServer.of(
            client -> {
              client.open(Replies.SIMPLE, SIZE, FLAGS);
              client.awaitEnd();
            })) {
      NbdClient client = open(server);
      Callers callers = new Callers();
      for (int i = 0; i < 4; i++) {
        callers.start(() -> client.read(ByteBuffer.allocate(1), 0));
      }
      ByteBuffer gone;
      try (Arena arena = Arena.ofShared()) {
        gone = arena.allocate(512).asByteBuffer();
      }
      assertThatThrownBy(() -> client.write(gone, 0, CommandFlags.NONE))
          .isInstanceOfSatisfying(
              LostException.class, lost -> assertThat(lost.mayStillHappen()).isTrue())
          .hasMessageContaining("could not be sent");
      callers.join();
      assertThatThrownBy(() -> client.flush()).isInstanceOf(LostException.class);
      client.close();
    }
  }

  @Test
  void onlyAfterGivingUpAConnectionMayTheServerStillCarryOutRequests() throws Exception {
    try (ScriptedServer server =
        ScriptedServer.of(
            client -> {
              client.open(Replies.SIMPLE, SIZE, FLAGS);
              client.request();
            },
            client -> {
              client.open(Replies.SIMPLE, SIZE, FLAGS);
              client.awaitEnd();
            })) {
      try (NbdClient ended = open(server)) {
        assertThatThrownBy(() -> ended.write(ByteBuffer.allocate(1), 0, CommandFlags.NONE))
            .isInstanceOfSatisfying(
                LostException.class, lost -> assertThat(lost.mayStillHappen()).isFalse());
      }
      try (NbdClient silent = open(server, Duration.ofMillis(50))) {
        assertThatThrownBy(() -> silent.write(ByteBuffer.allocate(1), 0, CommandFlags.NONE))
            .isInstanceOfSatisfying(
                LostException.class, lost -> assertThat(lost.mayStillHappen()).isTrue());
      }
    }
  }
}
