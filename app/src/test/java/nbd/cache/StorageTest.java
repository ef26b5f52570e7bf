package nbd.cache;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.protocol.Command;
import nbd.storage.Handle;
import nbd.testing.FakeBackend;
import nbd.testing.Gate;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** The one handle of a cache, opened again and closed beside calls that use it. */
class StorageTest {
  private static final Duration LONG = Duration.ofHours(1);

  private final FakeBackend backend = Scene.numbered(1 << 20);
  private final List<String> told = new ArrayList<>();

  private Storage storage(Duration pause) throws IOException {
    return new Storage(
        "test", () -> backend.open("", false), () -> told.add("a handle has broken"), pause);
  }

  private static void read(Storage storage) throws IOException {
    storage.run(handle -> handle.read(ByteBuffer.allocate(512), 0));
  }

  @Test
  void whatIsReadAheadWhenTheLastClientGoesHasItsHandleToTheEndAndOpensNone() throws IOException {
    Storage storage = storage(LONG);
    Gate gate = new Gate();
    backend.hook(gate, Command.READ);
    Running readAhead = Running.start(() -> read(storage));
    gate.awaitReached();
    storage.close();
    assertThat(backend.openHandles()).as("somebody uses it").isEqualTo(1);
    gate.open();
    readAhead.join();
    assertThat(backend.openHandles()).isEqualTo(0);
    assertThatThrownBy(() -> read(storage)).hasMessageContaining("let go");
    assertThat(backend.handles()).hasSize(1);
  }

  /** An attempt to open may take as long as a silent server's timeout. */
  @Test
  void thoseWhoWaitForAnAttemptToOpenShareItsFailureAndNoneIsMadeInThePause() throws IOException {
    Storage storage = storage(LONG);
    AtomicInteger attempts = new AtomicInteger();
    Gate gate = new Gate();
    backend.opening(
        () -> {
          attempts.incrementAndGet();
          gate.pass();
          throw new IOException("it does not answer");
        });
    backend.crash();
    assertThatThrownBy(() -> read(storage)).hasMessageContaining("crashed");

    List<Running> readers = new ArrayList<>();
    for (int i = 0; i < 6; i++) {
      readers.add(Running.start(() -> read(storage)));
      gate.awaitReached();
      readers.getLast().awaitParked();
    }
    gate.open();
    for (Running reader : readers) {
      assertThatThrownBy(reader::join).hasMessageContaining("does not answer");
    }
    assertThatThrownBy(() -> storage.run(Handle::flush))
        .as("it was asked for before, and had something else to wait for")
        .hasMessageContaining("does not answer");
    assertThat(attempts).hasValue(1);

    backend.opening(() -> {});
    storage.endPause();
    read(storage);
    assertThat(told).as("once for each break").hasSize(1);
    storage.close();
    assertThat(backend.openHandles()).isEqualTo(0);
  }

  @Test
  void afterThePauseTheNextCallTriesToOpenAgain() throws IOException {
    Storage storage = storage(Duration.ZERO);
    backend.crash();
    assertThatThrownBy(() -> read(storage)).hasMessageContaining("crashed");
    backend.opening(
        () -> {
          throw new IOException("it is not there");
        });
    assertThatThrownBy(() -> read(storage)).hasMessageContaining("not there");
    backend.opening(() -> {});
    read(storage);
    storage.close();
    assertThat(backend.openHandles()).isEqualTo(0);
  }

  /**
   * The cache is told of the break only then, and so finds everything that the calls have noted.
   */
  @Test
  void aBrokenHandleIsReplacedWhenAllItsCallsHaveEnded() throws IOException {
    Storage storage = storage(LONG);
    Gate gate = new Gate();
    backend.after(gate, Command.READ);
    Running inFlight = Running.start(() -> read(storage));
    gate.awaitReached();
    backend.crash();
    assertThatThrownBy(() -> storage.run(Handle::flush)).hasMessageContaining("crashed");
    Running next = Running.start(() -> read(storage));
    next.awaitParked();
    assertThat(told).isEmpty();
    assertThat(backend.handles()).hasSize(1);
    gate.open();
    assertThatThrownBy(inFlight::join).hasMessageContaining("crashed");
    next.join();
    assertThat(told).hasSize(1);
    assertThat(backend.handles()).hasSize(2);
    storage.close();
  }

  @Test
  void closingDoesNotWaitForAnAttemptToOpen() throws IOException {
    Storage storage = storage(LONG);
    backend.crash();
    assertThatThrownBy(() -> read(storage)).hasMessageContaining("crashed");
    Gate gate = new Gate();
    backend.opening(gate::pass);
    Running opener = Running.start(() -> read(storage));
    gate.awaitReached();
    Running waiting = Running.start(() -> read(storage));
    waiting.awaitParked();
    storage.close();
    assertThatThrownBy(waiting::join).hasMessageContaining("let go");
    gate.open();
    opener.join();
    assertThat(backend.openHandles()).isEqualTo(0);
  }
}
