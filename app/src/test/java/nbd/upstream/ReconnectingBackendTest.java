package nbd.upstream;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.Operation;
import nbd.testing.FakeBackend;
import nbd.testing.FakeBackend.Call;
import nbd.testing.FarBackend;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Connections whose storage crashes and comes back. */
@Timeout(300)
final class ReconnectingBackendTest {
  private static final int SIZE = 4096;
  private static final Duration LONG = Duration.ofMinutes(1);

  private static final Capabilities MULTI_CONN = FakeBackend.all();
  private static final Capabilities SINGLE = MULTI_CONN.without(Capability.MULTI_CONN);

  private final FakeBackend storage = new FakeBackend(SIZE);

  private static ByteBuffer bytes(int length, int value) {
    byte[] bytes = new byte[length];
    Arrays.fill(bytes, (byte) value);
    return ByteBuffer.wrap(bytes);
  }

  private static void write(Handle handle, int offset, int length, int value) throws IOException {
    handle.write(bytes(length, value), offset, CommandFlags.NONE);
  }

  private static byte[] read(Handle handle, int offset, int length) throws IOException {
    ByteBuffer into = ByteBuffer.allocate(length);
    handle.read(into, offset);
    return into.array();
  }

  private Handle open(ReconnectingBackend filter) throws IOException {
    return filter.open("", false);
  }

  private ReconnectingBackend filter(Duration within, long bytes) {
    return new ReconnectingBackend(FarBackend.takingAll(storage), name -> "", within, bytes, false);
  }

  @Test
  void answeredWritesSurviveACrashBeforeTheyAreFlushed() throws IOException {
    try (Handle handle = open(filter(LONG, 1 << 20))) {
      write(handle, 0, 100, 1);
      handle.zero(100, 50, CommandFlags.NONE);
      write(handle, 50, 60, 2);
      byte[] before = storage.content();
      storage.crash();

      assertThat(read(handle, 0, SIZE)).isEqualTo(before);
      storage.crash();
      handle.flush();
      assertThat(storage.durable()).isEqualTo(before);
    }
  }

  @Test
  void whatWasFlushedIsNotWrittenAgain() throws IOException {
    try (Handle handle = open(filter(LONG, 1 << 20))) {
      write(handle, 0, 100, 1);
      handle.flush();
      write(handle, 200, 10, 2);
      storage.takeDone();
      storage.crash();

      handle.flush();
      assertThat(storage.takeDone())
          .map(Call::toString)
          .containsExactly("write 10 at 200", "flush", "flush");
    }
  }

  @Test
  void whatIsOverwrittenOnAnotherConnectionIsNotWrittenAgain() throws IOException {
    ReconnectingBackend filter = filter(LONG, 1 << 20);
    try (Handle one = open(filter);
        Handle other = open(filter)) {
      write(one, 0, 100, 1);
      write(other, 40, 20, 2);
      storage.cut();

      read(other, 0, 1);
      read(one, 0, 1);
      assertThat(read(one, 0, 100)[50]).isEqualTo((byte) 2);
      assertThat(storage.takeDone())
          .map(Call::toString)
          .containsSubsequence("write 40 at 0", "write 40 at 60", "write 20 at 40", "flush");
    }
  }

  @Test
  void aTrimIsMadeAgainInTheFirstWritesPlace() throws IOException {
    try (Handle handle = open(filter(LONG, 1 << 20))) {
      write(handle, 0, 100, 1);
      handle.trim(0, 100, CommandFlags.NONE);
      storage.takeDone();
      storage.crash();

      handle.flush();
      assertThat(storage.takeDone())
          .map(Call::toString)
          .containsExactly("trim 100 at 0", "flush", "flush");
    }
  }

  @Test
  void itFlushesWhenWhatItKeepsIsTooMuch() throws IOException {
    try (Handle handle = open(filter(LONG, 1500))) {
      for (int i = 0; i < 10; i++) {
        write(handle, i * 200, 200, i + 1);
      }
      // With the overhead that is counted for each write, four fit.
      assertThat(storage.count(Command.FLUSH)).isEqualTo(2);
      write(handle, 0, 4000, 99);
      assertThat(storage.count(Command.FLUSH))
          .as("one that is too large gets all the room")
          .isEqualTo(3);
      storage.crash();
      assertThat(read(handle, 0, 4000)).isEqualTo(bytes(4000, 99).array());
    }
  }

  @Test
  void writesToTheSamePlaceDoNotUseTheRoomUp() throws IOException {
    try (Handle handle = open(filter(LONG, 1500))) {
      for (int i = 0; i < 1000; i++) {
        write(handle, 0, 500, i);
      }
      assertThat(storage.count(Command.FLUSH)).isZero();
    }
  }

  @Test
  void whileItIsAwayCallsWait() throws IOException {
    try (Handle handle = open(filter(LONG, 1 << 20))) {
      write(handle, 0, 100, 1);
      storage.failOpen();
      storage.crash();
      byte[] expected = bytes(100, 1).array();
      Running reading = Running.start(() -> assertThat(read(handle, 0, 100)).isEqualTo(expected));
      reading.awaitParked();

      storage.heal();
      reading.join();
    }
  }

  @Test
  void ifItStaysAwayTooLongTheHandleIsBrokenForGood() throws IOException {
    try (Handle handle = open(filter(Duration.ofMillis(20), 1 << 20))) {
      write(handle, 0, 100, 1);
      storage.failOpen();
      storage.crash();

      assertThatThrownBy(handle::flush)
          .isInstanceOf(LostException.class)
          .hasMessageContaining("has crashed")
          .hasMessageContaining("cannot be opened");
      storage.heal();
      assertThatThrownBy(handle::flush).isInstanceOf(LostException.class);
      assertThatThrownBy(() -> read(handle, 0, 1)).isInstanceOf(LostException.class);
    }
  }

  @Test
  void ifItComesBackAsSomethingElseTheHandleIsBrokenForGood() throws IOException {
    try (Handle handle = open(filter(LONG, 1 << 20))) {
      storage.resize(SIZE / 2);
      storage.cut();
      assertThatThrownBy(handle::flush)
          .isInstanceOf(LostException.class)
          .hasMessageContaining("2048 bytes instead of 4096");
    }
    try (Handle handle = open(filter(LONG, 1 << 20))) {
      storage.capabilities(MULTI_CONN.without(Capability.TRIM));
      storage.cut();
      assertThatThrownBy(() -> read(handle, 0, 1))
          .isInstanceOf(LostException.class)
          .hasMessageContaining("other flags");
    }
  }

  @Test
  void oneFlushCoversAllItsClientsAndForcedWritesAreTheServers() throws IOException {
    try (Handle handle = open(filter(LONG, 1 << 20))) {
      assertThat(handle.capabilities()).isEqualTo(MULTI_CONN);
    }
    storage.capabilities(SINGLE);
    try (Handle handle = open(filter(LONG, 1 << 20))) {
      assertThat(handle.capabilities()).isEqualTo(MULTI_CONN);
    }
  }

  /**
   * Three connections, under two names, write, flush and read at random while the storage crashes
   * over and over. With an even seed they share one connection.
   */
  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5, 6})
  void nothingThatWasAnsweredIsEverMissed(long seed) throws Exception {
    Random answers = new Random(seed);
    FakeBackend crashing =
        FakeBackend.of(new byte[SIZE], seed % 2 == 0 ? SINGLE : MULTI_CONN)
            .after(call -> LockSupport.parkNanos(1));
    crashing.answerAfterBreak(answers::nextBoolean);
    ReconnectingBackend filter =
        new ReconnectingBackend(FarBackend.takingAll(crashing), name -> "", LONG, 900, false);
    Model model = new Model();
    List<Handle> handles = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      handles.add(filter.open(i == 0 ? "one" : "other", false));
    }
    CompletableFuture<Void> chaos = new CompletableFuture<>();
    Thread crasher =
        Thread.ofPlatform()
            .start(
                () -> {
                  Random random = new Random(seed);
                  while (!chaos.isDone()) {
                    if (random.nextInt(20) == 0) {
                      crashing.failOpen();
                    }
                    if (random.nextInt(4) == 0) {
                      crashing.cut();
                    } else {
                      crashing.crash();
                    }
                    LockSupport.parkNanos(1);
                    crashing.heal();
                    LockSupport.parkNanos(3_000_000);
                  }
                });
    List<Running> clients = new ArrayList<>();
    for (Handle handle : handles) {
      Random own = new Random(seed * 100 + clients.size());
      clients.add(
          Running.start(
              () -> {
                model.play(handle, own, 400);
                handle.flush();
                handle.close();
              }));
    }
    try {
      for (Running client : clients) {
        client.join();
      }
    } catch (IOException | AssertionError failure) {
      throw new AssertionError("seed " + seed, failure);
    } finally {
      chaos.complete(null);
      crasher.join();
    }
    assertThat(crashing.durable()).as("seed %d", seed).isEqualTo(model.expected);
  }

  /** The content that the storage has to hold; each block is written by one client at a time. */
  private static final class Model {
    private static final int BLOCK = 32;

    private final byte[] expected = new byte[SIZE];
    private final ReentrantLock[] blocks = new ReentrantLock[SIZE / BLOCK];

    Model() {
      Arrays.setAll(blocks, i -> new ReentrantLock());
    }

    void play(Handle handle, Random random, int operations) throws IOException {
      for (int i = 0; i < operations; i++) {
        int first = random.nextInt(blocks.length);
        int count = 1 + random.nextInt(Math.min(4, blocks.length - first));
        for (int block = first; block < first + count; block++) {
          blocks[block].lock();
        }
        try {
          play(handle, random, first * BLOCK, count * BLOCK);
        } finally {
          for (int block = first; block < first + count; block++) {
            blocks[block].unlock();
          }
        }
      }
    }

    private void play(Handle handle, Random random, int offset, int length) throws IOException {
      switch (random.nextInt(10)) {
        case 0 -> handle.flush();
        case 1 -> {
          handle.zero(offset, length, CommandFlags.NONE);
          Arrays.fill(expected, offset, offset + length, (byte) 0);
        }
        case 2, 3 -> {
          byte[] now = Arrays.copyOfRange(expected, offset, offset + length);
          assertThat(read(handle, offset, length)).as("at %d", offset).isEqualTo(now);
        }
        case 4 -> {
          handle.write(bytes(length, 77), offset, CommandFlags.of(CommandFlag.FUA));
          Arrays.fill(expected, offset, offset + length, (byte) 77);
        }
        case 5, 6 -> {
          CompletableFuture<Optional<IOException>> end = new CompletableFuture<>();
          if (handle.begin(
              Operation.write(bytes(length, 88), offset, CommandFlags.NONE),
              failure -> end.complete(Optional.ofNullable(failure)))) {
            handle.push();
            assertThat(end.join()).isEmpty();
            Arrays.fill(expected, offset, offset + length, (byte) 88);
          }
        }
        default -> {
          int value = random.nextInt(256);
          write(handle, offset, length, value);
          Arrays.fill(expected, offset, offset + length, (byte) value);
        }
      }
    }
  }
}
