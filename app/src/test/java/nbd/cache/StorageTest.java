package nbd.cache;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.cache.TestStorage.Gate;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.storage.Handle;
import nbd.testing.Eventually;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** How the one handle is opened, exchanged and closed beside calls that use it. */
class StorageTest {
  private final TestStorage backend = TestStorage.numbered(1 << 20);

  private static void read(Storage storage) throws IOException {
    storage.run(storage.failedOpenings(), handle -> handle.read(ByteBuffer.allocate(512), 0));
  }

  @Test
  void whatIsReadAheadWhenTheLastClientGoesHasItsHandleToTheEndAndOpensNone() throws IOException {
    Storage storage = new Storage("test", readOnly -> backend.open("", readOnly), false, () -> {});
    Gate gate = new Gate(Command.READ);
    backend.before = gate;
    Running readAhead = Running.start(() -> read(storage));
    gate.awaitReached();
    storage.close();
    assertThat(backend.open).as("somebody uses it").hasValue(1);
    gate.open();
    readAhead.join();
    assertThat(backend.open).hasValue(0);
    assertThatThrownBy(() -> read(storage)).hasMessageContaining("let go");
    assertThat(backend.opened).hasValue(1);
  }

  /** An attempt to open may take as long as a silent server's timeout. */
  @Test
  void thoseWhoWaitForAnAttemptToOpenShareItsFailureAndWhoComesLaterMakesTheNext()
      throws IOException {
    AtomicInteger attempts = new AtomicInteger();
    Gate gate = new Gate(Command.CACHE);
    Storage storage =
        new Storage(
            "test",
            readOnly -> {
              if (attempts.incrementAndGet() == 2) {
                gate.on(TestStorage.Call.of(Command.CACHE, 0, 0));
                throw new IOException("it does not answer");
              }
              return backend.open("", readOnly);
            },
            false,
            () -> {});
    backend.crash();
    assertThatThrownBy(() -> read(storage)).hasMessageContaining("crashed");

    long since = storage.failedOpenings();
    Running first = Running.start(() -> read(storage));
    gate.awaitReached();
    List<Running> others = new ArrayList<>();
    for (int i = 0; i < 5; i++) {
      others.add(Running.start(() -> read(storage)));
      others.getLast().awaitParked();
    }
    gate.open();
    assertThatThrownBy(first::join).hasMessageContaining("does not answer");
    for (Running other : others) {
      assertThatThrownBy(other::join).hasMessageContaining("does not answer");
    }
    assertThatThrownBy(() -> storage.run(since, handle -> handle.flush()))
        .as("it was asked for before, and had something else to wait for")
        .hasMessageContaining("does not answer");
    assertThat(attempts).hasValue(2);
    read(storage);
    assertThat(attempts).hasValue(3);
    storage.close();
  }

  @Test
  void closingDoesNotWaitForAnAttemptToOpen() throws IOException {
    CountDownLatch opening = new CountDownLatch(1);
    CountDownLatch goOn = new CountDownLatch(1);
    Storage storage =
        new Storage(
            "test",
            readOnly -> {
              if (backend.opened.get() > 0) {
                opening.countDown();
                Eventually.await(goOn);
              }
              return backend.open("", readOnly);
            },
            false,
            () -> {});
    backend.crash();
    assertThatThrownBy(() -> read(storage)).isNotNull();
    Running opener = Running.start(() -> read(storage));
    Eventually.await(opening);
    Running waiting = Running.start(() -> read(storage));
    waiting.awaitParked();
    storage.close();
    assertThatThrownBy(waiting::join).hasMessageContaining("let go");
    goOn.countDown();
    opener.join();
    assertThat(backend.open).hasValue(0);
  }

  @Test
  void aWriterThatComesWhileAReadersHandleIsOpenedAgainCanWrite() throws IOException {
    CountDownLatch opening = new CountDownLatch(1);
    CountDownLatch goOn = new CountDownLatch(1);
    CountDownLatch writable = new CountDownLatch(1);
    Storage storage =
        new Storage(
            "test",
            readOnly -> {
              Handle handle = backend.open("", readOnly);
              if (!readOnly) {
                writable.countDown();
              } else if (backend.opened.get() > 1) {
                opening.countDown();
                Eventually.await(goOn);
              }
              return handle;
            },
            true,
            () -> {});
    backend.crash();
    assertThatThrownBy(() -> read(storage)).isInstanceOf(IOException.class);
    Running reader = Running.start(() -> read(storage));
    Eventually.await(opening);
    Running writer = Running.start(storage::makeWritable);
    Eventually.await(writable);
    writer.awaitParked();
    goOn.countDown();
    reader.join();
    writer.join();
    boolean[] canWrite = new boolean[1];
    storage.run(
        storage.failedOpenings(),
        handle -> canWrite[0] = handle.capabilities().has(nbd.storage.Capability.WRITE));
    assertThat(canWrite[0]).isTrue();
    assertThat(backend.open).hasValue(1);
    storage.run(
        storage.failedOpenings(), handle -> handle.write(Scene.sector(1), 0, CommandFlags.NONE));
    storage.close();
    assertThat(backend.open).hasValue(0);
  }
}
