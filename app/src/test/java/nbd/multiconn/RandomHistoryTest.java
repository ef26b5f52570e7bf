package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import nbd.check.HistoryChecker;
import nbd.check.HistoryChecker.Violation;
import nbd.filter.ConnectionCacheFilter;
import nbd.filter.FilterBackend;
import nbd.filter.SerializeFilter;
import nbd.memory.MemoryBackend;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.storage.ThreadModel;
import nbd.testing.HookedBackend;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/**
 * Many connections that cache on their own read, write, flush, close and come back at random, and
 * every read is checked. The property {@code nbd.history.operations} says how many commands, {@code
 * nbd.history.seed} repeats the choices of a run that failed (not its interleaving).
 */
class RandomHistoryTest {
  private static final long OPERATIONS = Long.getLong("nbd.history.operations", 100_000);
  private static final long SEED = Long.getLong("nbd.history.seed", System.nanoTime());
  private static final int CONNECTIONS = 8;
  private static final int BLOCKS = 24;
  private static final int BLOCK = 512;

  @Test
  void emulateKeepsThePromise() throws IOException {
    assertThat(play(MultiConnMode.EMULATE, TrackDirty.CONNECTION, ThreadModel.PARALLEL, OPERATIONS))
        .isEmpty();
  }

  @Test
  void autoKeepsThePromiseOverABackendThatDoesNot() throws IOException {
    assertThat(play(MultiConnMode.AUTO, TrackDirty.CONNECTION, ThreadModel.PARALLEL, OPERATIONS))
        .isEmpty();
  }

  @Test
  void emulateKeepsThePromiseInEveryTrackingAndThreadModel() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      for (ThreadModel model :
          new ThreadModel[] {ThreadModel.SERIALIZE_ALL_REQUESTS, ThreadModel.SERIALIZE_REQUESTS}) {
        assertThat(play(MultiConnMode.EMULATE, tracking, model, OPERATIONS / 10))
            .as("%s %s", tracking, model)
            .isEmpty();
      }
    }
  }

  @Test
  void unsafeIsFoundOut() throws IOException {
    assertThat(play(MultiConnMode.UNSAFE, TrackDirty.CONNECTION, ThreadModel.PARALLEL, OPERATIONS))
        .isPresent();
  }

  private static Optional<Violation> play(
      MultiConnMode mode, TrackDirty tracking, ThreadModel model, long operations)
      throws IOException {
    System.out.println(
        "-Dnbd.history.seed=" + SEED + " for " + mode + " " + tracking + " " + model);
    Backend storage = new PausingFilter(new MemoryBackend(1 << 20));
    Backend caching = new ConnectionCacheFilter(storage, 5 * 4096);
    try (Backend filter =
        new MultiConnFilter(
            new SerializeFilter(caching, model),
            new MultiConnSettings(mode, tracking, false, false))) {
      Play play = new Play(filter, operations);
      List<Running> players = new ArrayList<>();
      for (int i = 0; i < CONNECTIONS; i++) {
        int connection = i;
        players.add(Running.start(() -> play.run(connection)));
      }
      for (Running player : players) {
        player.join();
      }
      return Optional.ofNullable(play.violation.get());
    }
  }

  /** Storage that lets others go first at times, so that calls overlap on few processors too. */
  private static final class PausingFilter extends FilterBackend {
    private final AtomicLong calls = new AtomicLong();

    PausingFilter(Backend next) {
      super(next);
    }

    private void pause() {
      if (calls.incrementAndGet() % 5 == 0) {
        LockSupport.parkNanos(1);
      }
    }

    @Override
    public Handle open(String exportName, boolean readOnly) throws IOException {
      return HookedBackend.handle(
          next.open(exportName, readOnly),
          (below, operation, patience, end) -> {
            if (patience != Patience.WAIT) {
              return below.perform(operation, patience, end);
            }
            pause();
            Outcome outcome = below.perform(operation, patience, end);
            if (operation.command() != Command.WRITE) {
              pause();
            }
            return outcome;
          });
    }
  }

  /** One run: what its players share. */
  private static final class Play {
    private final Backend backend;
    private final AtomicLong left;
    private final HistoryChecker checker = new HistoryChecker(BLOCKS);
    private final AtomicReference<Violation> violation = new AtomicReference<>();

    Play(Backend backend, long operations) {
      this.backend = backend;
      this.left = new AtomicLong(operations);
    }

    void run(int connection) throws IOException {
      SplittableRandom random = new SplittableRandom(SEED + connection);
      int name = connection;
      while (left.get() > 0 && violation.get() == null) {
        connect(name, random);
        // Another connection, whose own writes are not those of the one before.
        name += CONNECTIONS;
      }
    }

    /** One connection's life: it has two commands in flight at times. */
    private void connect(int connection, SplittableRandom random) throws IOException {
      try (Handle handle = backend.open("", false)) {
        int commands = random.nextInt(1, 2000);
        for (int i = 0; i < commands && violation.get() == null; i++) {
          if (left.decrementAndGet() < 0) {
            return;
          }
          if (random.nextInt(8) == 0) {
            SplittableRandom others = random.split();
            Running beside = Running.start(() -> command(handle, connection, others));
            command(handle, connection, random);
            beside.join();
          } else {
            command(handle, connection, random);
          }
        }
      }
    }

    private void command(Handle handle, int connection, SplittableRandom random)
        throws IOException {
      int block = random.nextInt(BLOCKS);
      int what = random.nextInt(100);
      if (what < 50) {
        HistoryChecker.Read read = checker.beginRead(connection, block);
        ByteBuffer data = ByteBuffer.allocate(BLOCK);
        handle.read(data, (long) block * BLOCK);
        checker
            .endRead(read, data.getLong(0))
            .ifPresent(
                found -> {
                  violation.compareAndSet(null, found);
                  System.out.println(found);
                });
      } else if (what < 88) {
        HistoryChecker.Write write = checker.beginWrite(connection, block, false);
        ByteBuffer data = ByteBuffer.allocate(BLOCK).putLong(0, write.value());
        handle.write(data, (long) block * BLOCK, CommandFlags.NONE);
        checker.endWrite(write, true);
      } else {
        HistoryChecker.Flush flush = checker.beginFlush(connection);
        handle.flush();
        checker.endFlush(flush, true);
      }
      if (random.nextInt(16) == 0) {
        // So that on few processors commands meet in more ways.
        LockSupport.parkNanos(1);
      }
    }
  }
}
