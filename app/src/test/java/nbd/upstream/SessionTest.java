package nbd.upstream;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.LostWritesException;
import nbd.storage.Operation;
import nbd.storage.SharedByName;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.FarBackend;
import nbd.testing.Gate;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Several clients of one export whose server crashes: what they read, and what is lost. */
@Timeout(300)
final class SessionTest {
  private static final int SIZE = 4096;
  private static final Duration LONG = Duration.ofMinutes(1);
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);

  private static final Capabilities MULTI_CONN = FakeBackend.all();
  private static final Capabilities SINGLE = MULTI_CONN.without(Capability.MULTI_CONN);

  private final FakeBackend storage = new FakeBackend(SIZE);

  private ReconnectingBackend backend(Duration within) {
    return new ReconnectingBackend(
        FarBackend.takingAll(storage), name -> "", within, 1 << 20, false);
  }

  private static ByteBuffer bytes(int length, int value) {
    byte[] bytes = new byte[length];
    Arrays.fill(bytes, (byte) value);
    return ByteBuffer.wrap(bytes);
  }

  private static void write(Handle handle, int offset, int length, int value) throws IOException {
    handle.write(bytes(length, value), offset, CommandFlags.NONE);
  }

  private static byte read(Handle handle, int offset) throws IOException {
    ByteBuffer into = ByteBuffer.allocate(1);
    handle.read(into, offset);
    return into.get(0);
  }

  /** A call that may wait. */
  private interface Call<T> {
    T make() throws IOException;
  }

  private static <T> CompletableFuture<T> start(Call<T> call) {
    CompletableFuture<T> end = new CompletableFuture<>();
    Thread.ofVirtual()
        .start(
            () -> {
              try {
                end.complete(call.make());
              } catch (IOException | RuntimeException | Error failure) {
                end.completeExceptionally(failure);
              }
            });
    return end;
  }

  private static CompletableFuture<Byte> startWrite(Handle handle, int offset, int value) {
    return start(
        () -> {
          write(handle, offset, 1, value);
          return (byte) value;
        });
  }

  private static CompletableFuture<Optional<IOException>> beginWrite(
      Handle handle, int offset, int value, CommandFlags flags) throws IOException {
    CompletableFuture<Optional<IOException>> end = new CompletableFuture<>();
    boolean begun =
        handle.begin(
            Operation.write(bytes(1, value), offset, flags),
            failure -> end.complete(Optional.ofNullable(failure)));
    assertThat(begun).as("it was begun").isTrue();
    handle.push();
    return end;
  }

  /** Fails a call of this name so many times. */
  private static FakeBackend.Hook failing(String what, int times, IOException failure) {
    AtomicInteger left = new AtomicInteger(times);
    return call -> {
      if (call.toString().startsWith(what) && left.getAndDecrement() > 0) {
        throw failure;
      }
    };
  }

  // Reads.

  @Test
  void nobodyReadsFromANewConnectionBeforeEverybodysWritesAreThereAgain() throws Exception {
    ReconnectingBackend backend = backend(LONG);
    Gate replay = new Gate();
    try (Handle a = backend.open("a", false);
        Handle b = backend.open("b", false)) {
      write(a, 0, 1, 1);
      storage.crash();
      storage.hook(replay, Command.WRITE);
      CompletableFuture<Byte> reading = start(() -> read(b, 0));
      replay.awaitReached();
      CompletableFuture<Byte> other = start(() -> read(a, 0));
      assertThat(reading).isNotDone();
      assertThat(other).isNotDone();
      replay.open();
      assertThat(reading.get()).isEqualTo((byte) 1);
      assertThat(other.get()).isEqualTo((byte) 1);
    }
  }

  @Test
  void anOlderWriteOfAnotherNameNeverReplacesANewerOne() throws Exception {
    ReconnectingBackend backend = backend(LONG);
    try (Handle a = backend.open("a", false);
        Handle b = backend.open("b", false)) {
      write(a, 0, 10, 1);
      write(b, 0, 10, 2);
      storage.crash();
      assertThat(read(b, 0)).isEqualTo((byte) 2);
      assertThat(read(a, 0)).isEqualTo((byte) 2);
      b.flush();
      storage.crash();
      assertThat(read(a, 5)).isEqualTo((byte) 2);
    }
  }

  @Test
  void aWriteThatWasOverwrittenByAClientThatLeftIsStillMadeAgain() throws Exception {
    ReconnectingBackend backend = backend(LONG);
    try (Handle a = backend.open("", false)) {
      write(a, 0, 10, 1);
      try (Handle b = backend.open("", false)) {
        write(b, 0, 10, 2);
      }
      storage.crash();
      a.flush();
      assertThat(storage.durable()[0]).isEqualTo((byte) 2);
    }
  }

  @Test
  void aClientThatComesAfterACrashThatNobodyHasNoticedReadsWhatWasWrittenBefore() throws Exception {
    ReconnectingBackend backend = backend(LONG);
    try (Handle a = backend.open("", false)) {
      write(a, 0, 10, 1);
      storage.crash();
      try (Handle b = backend.open("", false)) {
        assertThat(read(b, 0)).isEqualTo((byte) 1);
        b.flush();
        assertThat(storage.durable()[0]).isEqualTo((byte) 1);
      }
    }
  }

  @Test
  void aWriteThatTheServerRefusesDoesNotTakeAnAnsweredOneOut() throws Exception {
    try (Handle a = backend(LONG).open("", false)) {
      write(a, 0, 10, 1);
      storage.hook(failing("write", 1, new NbdException(NbdError.ENOSPC, "full")));
      assertThatThrownBy(() -> write(a, 0, 10, 2)).hasMessageContaining("full");
      storage.crash();
      a.flush();
      assertThat(storage.durable()[0]).isEqualTo((byte) 1);
    }
  }

  @Test
  void aForcedWriteIsNotReplacedByAnOlderOneThatIsMadeAgain() throws Exception {
    try (Handle a = backend(LONG).open("", false)) {
      write(a, 0, 10, 1);
      a.write(bytes(4, 2), 3, FUA);
      storage.takeDone();
      storage.crash();
      assertThat(read(a, 3)).isEqualTo((byte) 2);
      assertThat(read(a, 9)).isEqualTo((byte) 1);
      assertThat(storage.takeDone())
          .map(Object::toString)
          .startsWith("write 3 at 0", "write 3 at 7", "flush");
    }
  }

  @Test
  void whatAFlushDidNotCoverIsMadeAgainThoughItWasAnsweredDuringTheFlush() throws Exception {
    try (Handle a = backend(LONG).open("", false)) {
      Gate gate = new Gate();
      write(a, 0, 1, 1);
      storage.hook(gate, Command.FLUSH);
      Running flush = Running.start(a::flush);
      gate.awaitReached();
      write(a, 1, 1, 2);
      gate.open();
      flush.join();
      storage.takeDone();
      storage.crash();
      assertThat(read(a, 1)).isEqualTo((byte) 2);
      assertThat(storage.takeDone())
          .map(Object::toString)
          .containsExactly("write 1 at 1", "flush", "read 1 at 1");
    }
  }

  // Requests in flight.

  @Test
  void writesThatOverlapAreMadeOneAfterTheOther() throws Exception {
    ReconnectingBackend backend = backend(LONG);
    Gate gate = new Gate();
    storage.hook(gate, Command.WRITE);
    try (Handle a = backend.open("", false);
        Handle b = backend.open("", false)) {
      Running one = Running.start(() -> write(a, 0, 2, 1));
      gate.awaitReached();
      assertThat(b.begin(Operation.write(bytes(1, 2), 1, CommandFlags.NONE), failure -> {}))
          .as("a write that would have to wait is not begun")
          .isFalse();
      CompletableFuture<Byte> two = startWrite(b, 1, 2);
      startWrite(b, 2, 3).get();
      assertThat(two).isNotDone();
      gate.open();
      one.join();
      two.get();
      assertThat(read(a, 1)).isEqualTo((byte) 2);
    }
  }

  @Test
  void aBegunWriteWhoseConnectionBreaksIsMadeAgain() throws Exception {
    try (Handle a = backend(LONG).open("", false)) {
      storage.crash();
      assertThat(beginWrite(a, 0, 1, CommandFlags.NONE).get()).isEmpty();
      storage.crash();
      CompletableFuture<Optional<IOException>> reading = new CompletableFuture<>();
      ByteBuffer into = ByteBuffer.allocate(1);
      assertThat(
              a.begin(
                  Operation.read(into, 0),
                  failure -> reading.complete(Optional.ofNullable(failure))))
          .isTrue();
      a.push();
      assertThat(reading.get()).isEmpty();
      assertThat(into.get(0)).isEqualTo((byte) 1);
    }
  }

  @Test
  void aServerThatStopsPolitelyIsWaitedFor() throws Exception {
    try (Handle a = backend(LONG).open("", false)) {
      write(a, 0, 1, 1);
      NbdException stopping = new NbdException(NbdError.ESHUTDOWN, "stopping");
      storage.hook(failing("write", 3, stopping));
      write(a, 1, 1, 2);
      storage.hook(failing("flush", 1, stopping));
      a.flush();
      storage.hook(failing("read", 1, stopping));
      assertThat(read(a, 1)).isEqualTo((byte) 2);
      storage.hook(failing("write", 1, stopping));
      assertThat(beginWrite(a, 2, 3, CommandFlags.NONE).get()).isEmpty();
    }
  }

  @Test
  void aWriteOnAConnectionThatWasGivenUpIsNotMadeAgainSinceTheServerMayStillMakeIt()
      throws Exception {
    LostException silent = new LostException(NbdError.EIO, "silent", true);
    try (Handle a = backend(LONG).open("", false)) {
      write(a, 0, 1, 1);
      storage.hook(failing("write 1 at 5", 1, silent));
      assertThatThrownBy(() -> write(a, 5, 1, 9))
          .isInstanceOfSatisfying(
              NbdException.class, e -> assertThat(e.error()).isEqualTo(NbdError.EIO))
          .isNotInstanceOf(LostException.class)
          .hasMessageContaining("may still make");
      assertThat(read(a, 5)).as("the session goes on").isZero();
      storage.hook(failing("write 1 at 6", 1, silent));
      assertThat(beginWrite(a, 6, 9, FUA).get()).get().isNotInstanceOf(LostException.class);
      storage.hook(failing("trim", 1, silent));
      assertThatThrownBy(() -> a.trim(5, 1, CommandFlags.NONE)).hasMessageContaining("may still");
      storage.hook(failing("read", 1, silent));
      assertThat(read(a, 0)).as("reads are made again").isEqualTo((byte) 1);
      storage.hook(failing("flush", 1, silent));
      a.flush();
      assertThat(storage.durable()[0]).isEqualTo((byte) 1);
    }
  }

  /** The sleep lasts longer than the time for reconnecting; no order depends on it. */
  @Test
  void timeInWhichNothingIsAskedDoesNotCountForTheNextBreak() throws Exception {
    Duration within = Duration.ofSeconds(4);
    try (Handle a = backend(within).open("", false)) {
      storage.hook(failing("write", 1, new LostException(NbdError.EIO, "silent", true)));
      assertThatThrownBy(() -> write(a, 5, 1, 9)).hasMessageContaining("may still make");
      Thread.sleep(within.plusMillis(100));
      storage.cut();
      AtomicBoolean isBack = new AtomicBoolean();
      storage.opening(
          () -> {
            if (!isBack.getAndSet(true)) {
              throw new IOException("not yet");
            }
          });
      assertThat(read(a, 0)).isZero();
    }
  }

  @Test
  void aServerThatFallsSilentWhileItWritesAgainIsALoss() throws Exception {
    try (Handle a = backend(LONG).open("", false)) {
      write(a, 0, 1, 1);
      storage.hook(failing("write", 1, new LostException(NbdError.EIO, "silent", true)));
      storage.crash();
      assertThatThrownBy(a::flush)
          .isInstanceOf(LostException.class)
          .hasMessageContaining("newer data later");
    }
  }

  @Test
  void aRequestThatBreaksEveryConnectionFailsAndStarvesNobody() throws Exception {
    ReconnectingBackend backend = backend(Duration.ofSeconds(5));
    AtomicInteger poisoned = new AtomicInteger();
    int others = 0;
    storage.hook(
        call -> {
          if (call.toString().equals("write 7 at 7")) {
            poisoned.incrementAndGet();
            storage.cut();
          }
        });
    try (Handle a = backend.open("", false);
        Handle b = backend.open("", false)) {
      Running poison = Running.start(() -> write(a, 7, 7, 1));
      while (!poison.isDone()) {
        others++;
        write(b, 100, 1, others);
        assertThat(read(a, 100)).isEqualTo((byte) others);
      }
      assertThatThrownBy(poison::join)
          .isInstanceOf(NbdException.class)
          .isNotInstanceOf(LostException.class)
          .hasMessageContaining("each of the");
      assertThat(poisoned.get()).isGreaterThan(2);
      assertThat(others).isGreaterThan(2);
      b.flush();
      a.flush();
    }
  }

  @Test
  void otherRequestsThatMeetBreaksOfAnothersMakingAreAllAnswered() throws Exception {
    ReconnectingBackend backend = backend(Duration.ofSeconds(1));
    storage.hook(
        call -> {
          if (call.toString().equals("write 7 at 7")) {
            storage.cut();
          }
        });
    try (Handle a = backend.open("", false);
        Handle b = backend.open("", false)) {
      CompletableFuture<Optional<IOException>> poison = new CompletableFuture<>();
      assertThat(
              a.begin(
                  Operation.write(bytes(7, 1), 7, CommandFlags.NONE),
                  failure -> poison.complete(Optional.ofNullable(failure))))
          .isTrue();
      a.push();
      for (int i = 0; !poison.isDone(); i++) {
        int value = i;
        List<CompletableFuture<Byte>> many =
            List.of(
                startWrite(a, 200, value), startWrite(b, 201, value), startWrite(b, 202, value));
        for (CompletableFuture<Byte> one : many) {
          one.get();
        }
      }
      assertThat(poison.get()).isPresent();
    }
  }

  // Room.

  @Test
  void whatTheServerTellsAFlushThatNobodyAskedForIsToldByTheNextThatSomebodyDoes()
      throws Exception {
    ReconnectingBackend backend =
        new ReconnectingBackend(FarBackend.takingAll(storage), name -> "", LONG, 300, false);
    try (Handle a = backend.open("", false);
        Handle b = backend.open("", false)) {
      write(a, 0, 100, 1);
      storage.hook(failing("flush", 1, new NbdException(NbdError.EIO, "the disk")));
      assertThatThrownBy(() -> write(b, 200, 100, 2)).hasMessageContaining("the disk");
      assertThatThrownBy(a::flush)
          .isInstanceOf(LostWritesException.class)
          .hasMessageContaining("the disk");
      a.flush();
    }
  }

  @Test
  void theBufferIsTheExportsAndNotEachClients() throws Exception {
    ReconnectingBackend backend =
        new ReconnectingBackend(FarBackend.takingAll(storage), name -> "", LONG, 600, false);
    try (Handle a = backend.open("", false);
        Handle b = backend.open("", false)) {
      write(a, 0, 100, 1);
      write(b, 100, 100, 2);
      assertThat(storage.count(Command.FLUSH)).isZero();
      write(a, 200, 100, 3);
      assertThat(storage.count(Command.FLUSH)).isEqualTo(1);
    }
  }

  // Connections.

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void aServerThatIsNotMultiConnHasOneConnectionForAll(boolean single) throws Exception {
    FakeBackend server = FakeBackend.of(new byte[SIZE], single ? SINGLE : MULTI_CONN);
    ReconnectingBackend backend =
        new ReconnectingBackend(FarBackend.takingAll(server), name -> "", LONG, 1 << 20, false);
    try (Handle a = backend.open("a", false);
        Handle b = backend.open("b", false);
        Handle c = backend.open("b", true)) {
      assertThat(server.openHandles()).isEqualTo(single ? 1 : 3);
      server.crash();
      read(a, 0);
      assertThat(server.openHandles()).isEqualTo(single ? 1 : 3);
      read(b, 0);
      read(c, 0);
      assertThat(server.handles().size()).isEqualTo(single ? 2 : 6);
    }
    assertThat(server.openHandles()).isZero();
  }

  @Test
  void whenTheLastClientLeavesWhatIsAtRiskIsFlushed() throws Exception {
    Handle a = backend(LONG).open("", false);
    write(a, 0, 1, 1);
    a.close();
    assertThat(storage.durable()[0]).isEqualTo((byte) 1);
    assertThat(storage.openHandles()).isZero();
  }

  @Test
  void aWriteWhoseAnswerHasNotBeenTakenSurvivesACrashWhenAClientComesMeanwhile() throws Exception {
    ReconnectingBackend backend = backend(LONG);
    Gate answered = new Gate();
    storage.after(answered, Command.WRITE).answerAfterBreak(() -> true);
    try (Handle a = backend.open("a", false)) {
      CompletableFuture<Byte> writing = startWrite(a, 0, 1);
      answered.awaitReached();
      storage.crash();
      CompletableFuture<Handle> opening = start(() -> backend.open("b", false));
      Eventually.isTrue(
          "b is there or asks", () -> opening.isDone() || storage.count(Command.FLUSH) > 0);
      answered.open();
      writing.get();
      try (Handle b = opening.get()) {
        b.flush();
        assertThat(storage.durable()[0]).isEqualTo((byte) 1);
      }
    }
  }

  @Test
  void whatWasAnsweredIsFlushedBeforeAnExportThatHasChangedEndsTheSession() throws Exception {
    ReconnectingBackend backend = backend(LONG);
    try (Handle a = backend.open("a", false)) {
      write(a, 0, 1, 1);
      storage.capabilities(MULTI_CONN.without(Capability.TRIM));
      try (Handle b = backend.open("b", false)) {
        assertThat(b.capabilities().has(Capability.TRIM)).isFalse();
        assertThat(storage.durable()[0]).isEqualTo((byte) 1);
      }
    }
  }

  @Test
  void anErrorWhileALossIsNotedLeavesNobodyWaiting() throws Exception {
    Session session =
        Session.open(
            "session",
            () -> FarBackend.takingAll(storage).open("", false),
            new Session.Settings(
                LONG,
                1 << 20,
                false,
                loss -> {
                  throw new OutOfMemoryError("on purpose");
                }));
    SharedByName<Session> sessions = new SharedByName<>(any -> true, any -> {});
    Handle a = new SessionHandle(sessions.acquire("", () -> session), session.join(), false);
    write(a, 0, 1, 1);
    storage.failOpen();
    storage.crash();
    CompletableFuture<Byte> reading = start(() -> read(a, 0));
    session.stopWaiting();
    assertThat(reading.handle((value, failure) -> failure).get()).isInstanceOf(LostException.class);
  }

  @Test
  void aBegunWriteThatCouldNotBeKeptIsNotAnsweredWithSuccess() throws Exception {
    Session session =
        Session.open(
            "session",
            () -> FarBackend.takingAll(storage).open("", false),
            new Session.Settings(LONG, 1 << 20, false, loss -> {}));
    Requests.Request unkept =
        new Requests.Request(Operation.write(bytes(1, 1), 0, CommandFlags.NONE)) {
          @Override
          void succeeded() {
            throw new IllegalStateException() {
              private static final long serialVersionUID = 1;

              @Override
              public String getMessage() {
                throw new InternalError("on purpose");
              }
            };
          }
        };
    CompletableFuture<Optional<IOException>> end = new CompletableFuture<>();
    Handle on =
        session.requests.begin(
            session.join(), unkept, failure -> end.complete(Optional.ofNullable(failure)));
    assertThat(on).isNotNull();
    on.push();
    assertThat(end.get()).isPresent();
    session.end();
  }

  // Stopping.

  @Test
  void aServerThatStopsWaitsForNothingAndSaysWhatIsLost() throws Exception {
    ReconnectingBackend backend = backend(LONG);
    Handle a = backend.open("", false);
    write(a, 0, 100, 1);
    write(a, 200, 50, 2);
    storage.failOpen();
    storage.crash();
    CompletableFuture<Byte> reading = start(() -> read(a, 0));
    CompletableFuture<Byte> writing = startWrite(a, 1, 1);
    backend.stopWaiting();
    assertThat(reading.handle((value, failure) -> failure).get()).isInstanceOf(LostException.class);
    assertThat(writing.handle((value, failure) -> failure).get()).isInstanceOf(LostException.class);
    assertThatThrownBy(a::flush).isInstanceOf(LostException.class);
    a.close();
    assertThatThrownBy(backend::close)
        .isInstanceOf(IOException.class)
        .hasMessageContaining("2 writes (150 bytes)");
  }

  @Test
  void aServerThatStopsBeforeAnybodyHasNoticedTheCrashSaysWhatIsLost() throws Exception {
    ReconnectingBackend backend = backend(LONG);
    Handle a = backend.open("", false);
    write(a, 0, 100, 1);
    storage.failOpen();
    storage.crash();
    backend.stopWaiting();
    assertThatThrownBy(a::close).isInstanceOf(IOException.class);
    assertThatThrownBy(backend::close).hasMessageContaining("1 write (100 bytes)");
  }

  @Test
  void aServerThatStopsWithAllAtRiskFlushedLosesNothing() throws Exception {
    ReconnectingBackend backend = backend(LONG);
    Handle a = backend.open("", false);
    write(a, 0, 100, 1);
    backend.stopWaiting();
    a.close();
    backend.close();
    assertThat(storage.durable()[0]).isEqualTo((byte) 1);
  }

  @Test
  void afterALossTheNextClientBeginsAnew() throws Exception {
    ReconnectingBackend backend = backend(Duration.ofMillis(1));
    Handle a = backend.open("", false);
    write(a, 0, 1, 1);
    storage.failOpen();
    storage.crash();
    assertThatThrownBy(() -> read(a, 0)).isInstanceOf(LostException.class);
    storage.heal();
    try (Handle b = backend.open("", false)) {
      assertThat(read(b, 0)).isZero();
      assertThat(b.facts().identity()).isNotEqualTo(a.facts().identity());
      assertThat(a.broken()).isPresent();
      assertThat(b.broken()).isEmpty();
      assertThatThrownBy(a::flush)
          .isInstanceOfSatisfying(
              LostException.class, e -> assertThat(e.error()).isEqualTo(NbdError.ESHUTDOWN));
      a.close();
      write(b, 0, 1, 2);
    }
    assertThat(storage.openHandles()).isZero();
  }
}
