package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.filter.FilterBackend;
import nbd.filter.FilterHandle;
import nbd.protocol.Command;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReplyType;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.Gate;
import nbd.testing.Log;
import nbd.testing.Running;
import nbd.transmission.OpenExport;
import org.junit.jupiter.api.RepeatedTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.tinylog.Level;

/** Exports that are added, drained and removed while clients open, use and leave them. */
@Timeout(300)
final class ExportLifeTest {
  private static final Duration LONG = Duration.ofSeconds(60);
  private static final Duration SHORT = Duration.ofMillis(20);

  private final Exports exports = new Exports(0);

  /** Fails if it is closed while a handle is open, twice, or opened after that. */
  private static final class Strict extends FilterBackend {
    final AtomicInteger handles = new AtomicInteger();
    final AtomicInteger closed = new AtomicInteger();
    final List<String> mistakes = new ArrayList<>();
    Running.Call closing = () -> {};

    Strict(Backend next) {
      super(next);
    }

    private synchronized void check(boolean right, String mistake) {
      if (!right) {
        mistakes.add(mistake);
      }
    }

    @Override
    public Handle open(String exportName, boolean readOnly) throws IOException {
      handles.incrementAndGet();
      try {
        check(closed.get() == 0, "opened after it was closed");
        Handle handle = next.open(exportName, readOnly);
        handles.incrementAndGet();
        return new FilterHandle(handle) {
          @Override
          public void close() throws IOException {
            check(closed.get() == 0, "closed before its handle");
            next.close();
            handles.decrementAndGet();
          }
        };
      } finally {
        handles.decrementAndGet();
      }
    }

    @Override
    public void close() throws IOException {
      check(handles.get() == 0, "closed with " + handles.get() + " handles");
      check(closed.incrementAndGet() == 1, "closed twice");
      closing.run();
      next.close();
    }
  }

  /** A client that notes what is done to it. */
  private static final class Noting implements Export.Client {
    final CountDownLatch stopped = new CountDownLatch(1);
    final CountDownLatch cut = new CountDownLatch(1);

    @Override
    public void stop() {
      stopped.countDown();
    }

    @Override
    public void close() {
      cut.countDown();
    }
  }

  private Strict add(String name, FakeBackend fake) {
    Strict backend = new Strict(fake);
    exports.add(new Export(backend, List.of(name), new Export.Settings("", false)));
    return backend;
  }

  private boolean remove(String name, Duration patience) {
    return exports.remove(Set.of(exports.find(name).orElseThrow()), patience);
  }

  private static void assertRefused(Running.Call open, OptionReplyType type) {
    assertThatThrownBy(open::run)
        .isInstanceOfSatisfying(
            OptionException.class, refused -> assertThat(refused.type()).isEqualTo(type));
  }

  @Test
  void aRemovedExportIsClosedAfterItsLastClientHasLeft() throws Exception {
    Strict backend = add("a", new FakeBackend(4096));
    Strict other = add("b", new FakeBackend(4096));
    Noting one = new Noting();
    Noting two = new Noting();
    Noting elsewhere = new Noting();
    OpenExport first = exports.open("a", one);
    OpenExport second = exports.open("a", two);
    OpenExport kept = exports.open("b", elsewhere);
    Running removal = Running.start(() -> assertThat(remove("a", LONG)).isTrue());
    Eventually.await(one.stopped);
    Eventually.await(two.stopped);
    assertRefused(() -> exports.open("a", new Noting()), OptionReplyType.ERR_UNKNOWN);
    assertThat(exports.mayKnow("a")).isFalse();
    first.close();
    assertThat(removal.isDone()).isFalse();
    assertThat(backend.closed).hasValue(0);
    second.close();
    removal.join(LONG);
    assertThat(backend.closed).hasValue(1);
    assertThat(elsewhere.stopped.getCount()).isEqualTo(1);
    assertThat(other.closed).hasValue(0);
    kept.close();
    assertThat(backend.mistakes).isEmpty();
  }

  /** The opening has found the export, and the storage is opening it, when it is removed. */
  @Test
  void anOpeningThatHasBegunGetsAHandleThatIsClosedBeforeTheStorage() throws Exception {
    Gate gate = new Gate();
    FakeBackend fake = new FakeBackend(4096).opening(gate::pass);
    Strict backend = add("a", fake);
    Noting client = new Noting();
    Running opening = Running.start(() -> exports.open("a", client).close());
    gate.awaitReached();
    Running removal = Running.start(() -> assertThat(remove("a", LONG)).isTrue());
    Eventually.await(client.stopped);
    assertThat(backend.closed).hasValue(0);
    gate.open();
    opening.join(LONG);
    removal.join(LONG);
    assertThat(backend.closed).hasValue(1);
    assertThat(backend.mistakes).isEmpty();
  }

  /** The opening has found the export, but not entered it yet, when it is removed. */
  @Test
  void anOpeningThatHasOnlyFoundTheExportIsRefused() throws Exception {
    Strict backend = add("a", new FakeBackend(4096));
    Export found = exports.find("a").orElseThrow();
    assertThat(remove("a", LONG)).isTrue();
    assertRefused(() -> found.open("a", new Noting()), OptionReplyType.ERR_UNKNOWN);
    assertThat(backend.mistakes).isEmpty();
    assertThat(backend.closed).hasValue(1);
  }

  @Test
  void anOpeningThatFailsLeavesNothing() throws Exception {
    Strict backend = add("a", new FakeBackend(4096).failOpen());
    assertThatThrownBy(() -> exports.open("a", new Noting())).isInstanceOf(IOException.class);
    assertThat(exports.find("a").orElseThrow().state().connections()).isZero();
    assertThat(remove("a", LONG)).isTrue();
    assertThat(backend.closed).hasValue(1);
  }

  @RepeatedTest(20)
  void openingsThatRaceWithARemovalAreRefusedOrClosedBeforeTheStorage() throws Exception {
    Strict backend = add("a", new FakeBackend(4096));
    Export export = exports.find("a").orElseThrow();
    int clients = 8;
    CountDownLatch begun = new CountDownLatch(clients);
    AtomicBoolean removed = new AtomicBoolean();
    List<Running> running = new ArrayList<>();
    for (int i = 0; i < clients; i++) {
      running.add(
          Running.start(
              () -> {
                boolean refused = false;
                while (!refused) {
                  boolean late = removed.get();
                  try (OpenExport opened = export.open("a", new Noting())) {
                    assertThat(late).as("opened after it was removed").isFalse();
                    opened.handle().flush();
                    begun.countDown();
                  } catch (OptionException expected) {
                    refused = true;
                  }
                }
              }));
    }
    Eventually.await(begun);
    assertThat(remove("a", LONG)).isTrue();
    removed.set(true);
    for (Running client : running) {
      client.join(LONG);
    }
    assertThat(backend.closed).hasValue(1);
    assertThat(backend.mistakes).isEmpty();
    assertThat(exports.all()).isEmpty();
    assertThat(exports.stillOpen()).isEmpty();
  }

  @Test
  void aClientThatWentToAnotherExportIsNotStopped() throws Exception {
    add("a", new FakeBackend(4096));
    add("b", new FakeBackend(4096));
    Noting client = new Noting();
    exports.open("a", client).close();
    OpenExport kept = exports.open("b", client);
    assertThat(remove("a", LONG)).isTrue();
    assertThat(client.stopped.getCount()).isEqualTo(1);
    kept.close();
  }

  @Test
  void aClientThatDoesNotLeaveIsCut() throws Exception {
    Strict backend = add("a", new FakeBackend(4096));
    Noting client = new Noting();
    OpenExport opened = exports.open("a", client);
    Running leaving =
        Running.start(
            () -> {
              Eventually.await(client.cut);
              opened.close();
            });
    assertThat(exports.remove(exports.all(), Duration.ofSeconds(3))).isTrue();
    leaving.join(LONG);
    assertThat(backend.mistakes).isEmpty();
    assertThat(backend.closed).hasValue(1);
  }

  /** The storage hangs: nobody waits for it, and it is closed when it comes back. */
  @Test
  void storageThatStillWorksIsClosedByTheLastClient() throws Exception {
    Strict backend = add("a", new FakeBackend(4096));
    OpenExport opened = exports.open("a", new Noting());
    assertThat(remove("a", SHORT)).isFalse();
    assertThat(backend.closed).hasValue(0);
    assertThat(exports.all()).isEmpty();
    assertThat(exports.stillOpen()).hasSize(1);
    opened.close();
    assertThat(backend.closed).hasValue(1);
    assertThat(backend.mistakes).isEmpty();
    add("a", new FakeBackend(4096));
    assertThat(exports.stillOpen()).hasSize(1);
  }

  @Test
  void atTheEndEveryStorageIsClosedOnce() throws Exception {
    Strict removed = add("removed", new FakeBackend(4096));
    Strict kept = add("kept", new FakeBackend(4096));
    OpenExport hanging = exports.open("removed", new Noting());
    assertThat(remove("removed", SHORT)).isFalse();
    exports.stopWaiting();
    assertThatThrownBy(() -> add("late", new FakeBackend(4096)))
        .isInstanceOf(IllegalStateException.class);
    for (Export export : exports.stillOpen()) {
      export.close();
      export.close();
    }
    assertThat(kept.closed).hasValue(1);
    assertThat(removed.closed).hasValue(1);
    hanging.close();
    assertThat(removed.closed).hasValue(1);
  }

  @Test
  void aFailureToCloseIsLoggedAndTold() {
    Log.clear();
    Strict backend = add("a\nb", new FakeBackend(4096));
    backend.closing =
        () -> {
          throw new IOException("the disk is gone");
        };
    assertThat(remove("a\nb", LONG)).isFalse();
    assertThat(Log.at(Level.ERROR)).singleElement().asString().contains("a?b", "the disk is gone");
    assertThat(exports.stillOpen()).isEmpty();
  }

  @Test
  void onlyOneRemovesAnExport() {
    add("a", new FakeBackend(4096));
    Export export = exports.find("a").orElseThrow();
    assertThat(exports.remove(Set.of(export), LONG)).isTrue();
    assertThat(exports.remove(Set.of(export), LONG)).isFalse();
  }

  @Test
  void aDrainedExportIsFlushedAndServesAgainWhenItIsResumed() throws Exception {
    FakeBackend fake = new FakeBackend(4096);
    Strict backend = add("a", fake);
    Export export = exports.find("a").orElseThrow();
    Noting client = new Noting();
    OpenExport opened = exports.open("a", client);
    Running draining = Running.start(() -> assertThat(export.drain(LONG)).isTrue());
    Eventually.await(client.stopped);
    assertRefused(() -> exports.open("a", new Noting()), OptionReplyType.ERR_SHUTDOWN);
    assertThat(exports.mayKnow("a")).isTrue();
    assertThat(exports.list()).isEmpty();
    assertThat(fake.count(Command.FLUSH)).isZero();
    opened.close();
    draining.join(LONG);
    assertThat(fake.count(Command.FLUSH)).isEqualTo(1);
    assertThat(export.state().serving()).isFalse();
    assertThat(backend.closed).hasValue(0);
    export.resume();
    assertThat(exports.list()).hasSize(1);
    exports.open("a", new Noting()).close();
    assertThat(remove("a", LONG)).isTrue();
    export.resume();
    assertRefused(() -> export.open("a", new Noting()), OptionReplyType.ERR_UNKNOWN);
    assertThatThrownBy(() -> export.drain(LONG)).hasMessageContaining("removed");
    assertThat(backend.mistakes).isEmpty();
  }

  @Test
  void aClientWaitsForAPlaceAndIsRefusedWithTheExport() throws Exception {
    exports.add(
        new Export(
            new FakeBackend(4096), List.of("one"), new Export.Settings("", false, 1, "auto")));
    OpenExport first = exports.open("one", new Noting());
    Running second = Running.start(() -> exports.open("one", new Noting()).close());
    second.awaitParked();
    first.close();
    second.join(LONG);
    OpenExport again = exports.open("one", new Noting());
    assertRefused(() -> exports.open("one", new Noting()), OptionReplyType.ERR_POLICY);
    again.close();
  }

  @Test
  void aNameBelongsToOneExport() {
    add("a", new FakeBackend(4096));
    FakeBackend both = new FakeBackend(4096);
    Export.Settings settings = new Export.Settings("", false);
    assertThatThrownBy(() -> exports.add(new Export(both, List.of("b", "a"), settings)))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("already an export \"a\"");
    assertThat(exports.find("b")).isEmpty();
    exports.add(new Export(both, List.of(), settings));
    assertThatThrownBy(() -> exports.add(new Export(both, List.of(), settings)))
        .isInstanceOf(IllegalArgumentException.class);
    assertThat(exports.all()).hasSize(2);
  }
}
