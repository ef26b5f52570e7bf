package nbd.cache;

import static nbd.cache.Scene.BLOCK;
import static nbd.cache.Scene.write;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import nbd.check.HistoryChecker;
import nbd.check.Violation;
import nbd.filter.FuaFilter;
import nbd.filter.FuaMode;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.multiconn.TrackDirty;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdException;
import nbd.storage.Backend;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.testing.FakeBackend;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/**
 * Connections through multi-conn over a cache, in every mode of both: every read is checked against
 * the promise of multi-conn, and every connection learns of the storage's losses. The properties
 * are those of {@link RandomCacheTest}.
 */
class CacheHistoryTest {
  private static final long OPERATIONS = Long.getLong("nbd.cache.operations", 30_000);
  private static final long SEED = Long.getLong("nbd.cache.seed", System.nanoTime());
  private static final int CONNECTIONS = 6;
  private static final int SECTORS = 48;

  @Test
  void everyCacheModeKeepsThePromiseInEveryMultiConnMode() throws IOException {
    for (CacheMode cache : CacheMode.values()) {
      for (MultiConnMode mode : MultiConnMode.values()) {
        for (boolean isMultiConn : new boolean[] {false, true}) {
          new Play(cache, mode, isMultiConn).run();
        }
      }
    }
  }

  /** One connection's flush goes for all, so all have to learn what it finds. */
  @Test
  void aLossIsToldToEveryConnectionThoughOneFlushesForAll() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      for (MultiConnMode mode : new MultiConnMode[] {MultiConnMode.AUTO, MultiConnMode.EMULATE}) {
        FakeBackend storage = Scene.zeroed(64 * BLOCK);
        try (Backend filter = stack(storage, CacheMode.WRITEBACK, mode, tracking)) {
          Handle one = filter.open("", false);
          Handle other = filter.open("", false);
          for (int block = 0; block < 40; block++) {
            write(block % 2 == 0 ? one : other, (long) block * BLOCK, block);
          }
          storage.crash();
          String what = tracking + " " + mode;
          assertThatThrownBy(one::flush).as(what).hasMessageContaining("lost");
          one.flush();
          assertThatThrownBy(other::flush).as(what).hasMessageContaining("lost");
          other.flush();
        }
      }
    }
  }

  /** The cache is one for all names, but a flush goes for the connections of one name. */
  @Test
  void aLossIsToldToEveryConnectionOfEveryNameOfTheSameContent() throws IOException {
    FakeBackend storage = Scene.zeroed(64 * BLOCK);
    try (Backend filter =
        stack(storage, CacheMode.WRITEBACK, MultiConnMode.AUTO, TrackDirty.CONNECTION)) {
      Handle elsewhere = filter.open("another name", false);
      Handle one = filter.open("name", false);
      Handle other = filter.open("name", false);
      for (int block = 0; block < 60; block += 3) {
        write(elsewhere, (long) block * BLOCK, block);
        write(one, (block + 1L) * BLOCK, block);
        write(other, (block + 2L) * BLOCK, block);
      }
      storage.crash();
      assertThatThrownBy(elsewhere::flush).hasMessageContaining("lost");
      assertThatThrownBy(one::flush).hasMessageContaining("lost");
      one.flush();
      assertThatThrownBy(other::flush).hasMessageContaining("lost");
      other.flush();
    }
  }

  private static Backend stack(
      FakeBackend storage, CacheMode cache, MultiConnMode mode, TrackDirty tracking) {
    CacheSettings settings = new CacheSettings(cache, 4L * BLOCK, BLOCK);
    return new FuaFilter(
        new MultiConnFilter(
            new CacheFilter(storage, settings, false, new CacheStatistics()),
            new MultiConnSettings(mode, tracking, false, false)),
        FuaMode.PASS);
  }

  private static final class Play {
    private final FakeBackend storage = Scene.zeroed(16 * BLOCK);
    private final Backend filter;
    private final AtomicLong left = new AtomicLong(OPERATIONS / 10);
    private final AtomicLong calls = new AtomicLong();
    private final HistoryChecker checker = new HistoryChecker(SECTORS);
    private final AtomicReference<Violation> violation = new AtomicReference<>();
    private final String what;

    Play(CacheMode cache, MultiConnMode mode, boolean isMultiConn) {
      what = "-Dnbd.cache.seed=" + SEED + " " + cache + " " + mode + " " + isMultiConn;
      storage.capabilities(
          isMultiConn
              ? Scene.CAPABILITIES.with(Capability.MULTI_CONN)
              : Scene.CAPABILITIES.without(Capability.FUA));
      storage.hook(call -> pause()).after(call -> pause());
      filter = stack(storage, cache, mode, TrackDirty.CONNECTION);
    }

    private void pause() {
      if (calls.incrementAndGet() % 4 == 0) {
        LockSupport.parkNanos(1);
      }
    }

    void run() throws IOException {
      System.out.println(what);
      List<Running> players = new ArrayList<>();
      for (int i = 0; i < CONNECTIONS; i++) {
        int connection = i;
        players.add(Running.start(() -> play(connection)));
      }
      for (Running player : players) {
        player.join();
      }
      filter.close();
      assertThat(violation.get()).as(what).isNull();
    }

    private void play(int number) throws IOException {
      SplittableRandom random = new SplittableRandom(SEED + number);
      int connection = number;
      while (left.get() > 0) {
        try (Handle handle = filter.open("", false)) {
          for (int i = random.nextInt(500); i > 0 && left.decrementAndGet() > 0; i--) {
            command(handle, connection, random);
          }
        }
        connection += CONNECTIONS;
      }
    }

    private void command(Handle handle, int connection, SplittableRandom random)
        throws IOException {
      int number = random.nextInt(SECTORS);
      // Spread over the blocks, three in each.
      long at = (number / 3) * (long) BLOCK + number % 3 * 512L;
      int kind = random.nextInt(100);
      if (kind < 50) {
        HistoryChecker.Read read = checker.beginRead(connection, number);
        ByteBuffer data = ByteBuffer.allocate(512);
        if (random.nextBoolean() || !handle.tryNow(Operation.read(data, at))) {
          handle.read(data.clear(), at);
        }
        checker.endRead(read, data.getLong(0)).ifPresent(found -> violation.set(found));
      } else if (kind < 90) {
        boolean fua = kind < 54;
        HistoryChecker.Write write = checker.beginWrite(connection, number, fua);
        ByteBuffer data = ByteBuffer.allocate(512).putLong(0, write.value());
        CommandFlags flags = fua ? CommandFlags.of(CommandFlag.FUA) : CommandFlags.NONE;
        if (fua || !handle.tryNow(Operation.write(data, at, CommandFlags.NONE))) {
          handle.write(data.clear(), at, flags);
        }
        checker.endWrite(write, true);
      } else {
        HistoryChecker.Flush flush = checker.beginFlush(connection);
        try {
          handle.flush();
        } catch (NbdException failure) {
          throw new AssertionError(what, failure);
        }
        checker.endFlush(flush, true);
      }
    }
  }
}
