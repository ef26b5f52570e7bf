package nbd.cache;

import static nbd.cache.Scene.BLOCK;
import static nbd.cache.Scene.SECTOR;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.testing.FakeBackend;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/**
 * Several connections write, read, zero and flush sectors of the same blocks at random, over a
 * cache that is much too small. Each sector has one connection that changes it, so that its content
 * is known exactly, and all flush for all. The property {@code nbd.cache.operations} says how many
 * commands, {@code nbd.cache.seed} repeats the choices of a run that failed (not its interleaving).
 */
class RandomCacheTest {
  private static final long OPERATIONS = Long.getLong("nbd.cache.operations", 30_000);
  private static final long SEED = Long.getLong("nbd.cache.seed", System.nanoTime());
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);
  private static final int CONNECTIONS = 6;
  private static final int STORED_BLOCKS = 40;
  private static final int CALLS_BETWEEN_CRASHES = 40;
  private static final int SECTORS = STORED_BLOCKS * BLOCK / SECTOR;

  @Test
  void aTinyCacheNeverShowsOrStoresWhatIsTooOld() throws IOException {
    for (int blocks : new int[] {4, 7, 16}) {
      new Play(CacheMode.WRITEBACK, blocks, Trouble.NONE).run();
      new Play(CacheMode.WRITETHROUGH, blocks, Trouble.NONE).run();
    }
  }

  @Test
  void failingWriteBacksLoseNothing() throws IOException {
    for (int blocks : new int[] {4, 16}) {
      new Play(CacheMode.WRITEBACK, blocks, Trouble.ERRORS).run();
      new Play(CacheMode.WRITETHROUGH, blocks, Trouble.ERRORS).run();
    }
  }

  @Test
  void storageThatCrashesIsGivenAgainWhatIsCached() throws IOException {
    new Play(CacheMode.WRITEBACK, 2 * STORED_BLOCKS, Trouble.CRASHES).run();
  }

  @Test
  void unsafeStoresEverythingAtTheEnd() throws IOException {
    new Play(CacheMode.UNSAFE, 8, Trouble.ERRORS).run();
  }

  private enum Trouble {
    NONE,
    ERRORS,
    CRASHES
  }

  /** A sector's values since the last flush that covered it, in order; the first is durable. */
  private static final class Sector {
    private final List<Long> values = new ArrayList<>(List.of(0L));
    private long removed;

    synchronized void begin(long value) {
      values.add(value);
    }

    synchronized long last() {
      return values.getLast();
    }

    /** Returns the number of changes so far. */
    synchronized long now() {
      return removed + values.size() - 1;
    }

    /** Notes that the changes up to a number are durable. */
    synchronized void covered(long upTo) {
      while (removed < upTo) {
        values.removeFirst();
        removed++;
      }
    }

    synchronized boolean mayBe(long value) {
      return values.contains(value);
    }
  }

  private static final class Play {
    private final CacheMode mode;
    private final Trouble trouble;
    private final FakeBackend storage = Scene.zeroed(STORED_BLOCKS * BLOCK);
    private final Scene scene;
    private final AtomicLong left = new AtomicLong(OPERATIONS / 3);
    private final AtomicLong calls = new AtomicLong();
    private final AtomicBoolean calm = new AtomicBoolean();
    private final Sector[] sectors = new Sector[SECTORS];
    private final String what;

    Play(CacheMode mode, int blocks, Trouble trouble) {
      this.mode = mode;
      this.trouble = trouble;
      this.what = "-Dnbd.cache.seed=" + SEED + " " + mode + " " + blocks + " " + trouble;
      this.scene = new Scene(mode, blocks, storage);
      for (int i = 0; i < SECTORS; i++) {
        sectors[i] = new Sector();
      }
      storage.hook(this::disturb).after(call -> pause());
    }

    private void pause() {
      if (calls.incrementAndGet() % 3 == 0) {
        LockSupport.parkNanos(1);
      }
    }

    private void disturb(FakeBackend.Call call) throws IOException {
      pause();
      long number = calls.get();
      if (calm.get() || trouble != Trouble.ERRORS) {
        return;
      }
      boolean changes = call.command() != Command.READ && call.command() != Command.BLOCK_STATUS;
      if (number % 7 == 0 || (changes && number % 5 == 0)) {
        throw new NbdException(NbdError.EIO, "an injected error");
      }
    }

    void run() throws IOException {
      System.out.println(what);
      List<Running> players = new ArrayList<>();
      for (int i = 0; i < CONNECTIONS; i++) {
        int connection = i;
        players.add(Running.start(() -> play(connection)));
      }
      if (trouble == Trouble.CRASHES) {
        players.add(Running.start(this::crashAtTimes));
      }
      for (Running player : players) {
        player.join();
      }
      calm.set(true);
      scene.filter.close();
      ByteBuffer stored = ByteBuffer.wrap(storage.durable());
      boolean flushesAtEnd = mode != CacheMode.WRITETHROUGH;
      ByteBuffer end = flushesAtEnd ? stored : ByteBuffer.wrap(storage.content());
      for (int i = 0; i < SECTORS; i++) {
        assertThat(end.getLong(i * SECTOR))
            .as("%s: sector %d", what, i)
            .isEqualTo(sectors[i].last());
      }
      assertThat(scene.statistics.dirtyBytes()).as(what).isZero();
    }

    /** Crashes after a number of calls, not a time: so requests get on, on a slow machine too. */
    private void crashAtTimes() {
      long next = 0;
      while (left.get() > 0) {
        LockSupport.parkNanos(1_000_000);
        if (calls.get() >= next) {
          next = calls.get() + CALLS_BETWEEN_CRASHES;
          storage.crash();
        }
      }
    }

    private void play(int connection) throws IOException {
      SplittableRandom random = new SplittableRandom(SEED + connection);
      long value = connection;
      while (left.get() > 0) {
        try (Handle handle = scene.open()) {
          for (int i = random.nextInt(300); i > 0 && left.decrementAndGet() > 0; i--) {
            value += CONNECTIONS;
            command(handle, connection, value, random);
          }
        }
      }
    }

    /**
     * Chooses a sector that only this connection writes; its neighbours in the block belong to
     * others.
     */
    private static int own(int connection, SplittableRandom random) {
      return random.nextInt(SECTORS / CONNECTIONS) * CONNECTIONS + connection;
    }

    private void command(Handle handle, int connection, long value, SplittableRandom random)
        throws IOException {
      int number = own(connection, random);
      Sector sector = sectors[number];
      long at = (long) number * SECTOR;
      int kind = random.nextInt(100);
      if (kind < 45) {
        sector.begin(value);
        ByteBuffer data = ByteBuffer.allocate(SECTOR).putLong(0, value).putLong(504, value);
        if (random.nextBoolean() || !handle.tryNow(Operation.write(data, at, CommandFlags.NONE))) {
          untilItSucceeds(() -> handle.write(data.duplicate().clear(), at, CommandFlags.NONE));
        }
      } else if (kind < 50) {
        sector.begin(value);
        long now = sector.now();
        ByteBuffer data = ByteBuffer.allocate(SECTOR).putLong(0, value).putLong(504, value);
        untilItSucceeds(() -> handle.write(data.duplicate(), at, FUA));
        checkDurable(number, now);
      } else if (kind < 55 && trouble != Trouble.CRASHES) {
        sector.begin(0);
        untilItSucceeds(() -> handle.zero(at, SECTOR, CommandFlags.NONE));
      } else if (kind < 60) {
        flush(handle, connection);
      } else if (kind < 63) {
        readMany(handle, random);
      } else {
        ByteBuffer into = ByteBuffer.allocate(SECTOR);
        if (random.nextBoolean() || !handle.tryNow(Operation.read(into, at))) {
          untilItSucceeds(() -> handle.read(into.clear(), at));
        }
        assertThat(into.getLong(0)).as("%s: sector %d", what, number).isEqualTo(sector.last());
        assertThat(into.getLong(504)).as("%s: sector %d", what, number).isEqualTo(sector.last());
      }
    }

    private void flush(Handle handle, int connection) throws IOException {
      long[] before = new long[SECTORS];
      for (int i = connection; i < SECTORS; i += CONNECTIONS) {
        before[i] = sectors[i].now();
      }
      untilItSucceeds(handle::flush);
      for (int i = connection; i < SECTORS; i += CONNECTIONS) {
        checkDurable(i, before[i]);
      }
    }

    /** Checks that a loss of power would leave the sector as of this change or a later one. */
    private void checkDurable(int number, long atLeast) {
      if (mode == CacheMode.UNSAFE) {
        return;
      }
      long stored = storage.durableAt(number * SECTOR);
      sectors[number].covered(atLeast);
      assertThat(sectors[number].mayBe(stored))
          .as("%s: sector %d has %d after a flush", what, number, stored)
          .isTrue();
    }

    /** Reads sectors of any connection, and checks that each holds data written there. */
    private void readMany(Handle handle, SplittableRandom random) throws IOException {
      int count = random.nextInt(1, 60);
      int first = random.nextInt(SECTORS - count);
      ByteBuffer into = ByteBuffer.allocate(count * SECTOR);
      untilItSucceeds(() -> handle.read(into.clear(), (long) first * SECTOR));
      for (int i = 0; i < count; i++) {
        long value = into.getLong(i * SECTOR);
        assertThat(into.getLong(i * SECTOR + 504)).as("%s: a torn sector", what).isEqualTo(value);
        assertThat(value == 0 || value % CONNECTIONS == (first + i) % CONNECTIONS)
            .as("%s: sector %d has %d", what, first + i, value)
            .isTrue();
      }
    }

    private void untilItSucceeds(Running.Call action) throws IOException {
      for (int tries = 0; ; tries++) {
        try {
          action.run();
          return;
        } catch (NbdException failure) {
          assertThat(trouble).as("%s: %s", what, failure).isNotEqualTo(Trouble.NONE);
          assertThat(failure).as(what).hasMessageNotContaining("lost");
          if (tries > 500) {
            throw failure;
          }
        }
      }
    }
  }
}
