package nbd.cache;

import static nbd.cache.Scene.BLOCK;
import static nbd.cache.Scene.SECTOR;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.testing.FakeBackend;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/**
 * Several connections that change the same few sectors, in part, as a whole, and over the border of
 * two blocks, with and without FUA and zeroes, over slow storage and a cache that is much too
 * small. No read may return a value that was replaced before the read began, nor a value again
 * after another one was read. The properties are those of {@link RandomCacheTest}.
 */
class SharedSectorsTest {
  private static final int OPERATIONS = Integer.getInteger("nbd.cache.operations", 30_000) / 15;
  private static final long SEED = Long.getLong("nbd.cache.seed", System.nanoTime());
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);
  private static final int CONNECTIONS = 6;
  private static final int HALF = SECTOR / 2;

  /** The halves of two sectors, each at one side of the border between two blocks. */
  private static final int HALVES = 4;

  private static final int START = BLOCK - SECTOR;

  private static long offset(int half) {
    return START + (long) half * HALF;
  }

  @Test
  void whatSeveralConnectionsWriteIntoTheSameSectorsIsNeverUndone() throws IOException {
    for (int round = 0; round < 10; round++) {
      for (int blocks : new int[] {4, 16}) {
        new Play(SEED + round, blocks).run();
      }
    }
  }

  private static final class Play {
    private final FakeBackend storage = Scene.zeroed(40 * BLOCK);
    private final Scene scene;
    private final History history = new History(HALVES);
    private final AtomicInteger left = new AtomicInteger(OPERATIONS / 10);
    private final AtomicInteger values = new AtomicInteger();
    private final long seed;
    private final String what;

    Play(long seed, int blocks) {
      this.seed = seed;
      this.what = "-Dnbd.cache.seed=" + seed + " " + blocks;
      this.scene = new Scene(CacheMode.WRITEBACK, blocks, storage);
      storage.allocation(this::allocation);
      storage.hook(call -> pause(call)).after(call -> pause(call));
    }

    /** Returns the run of zeroes or of data at an offset, which may end past the range. */
    private List<Extent> allocation(long offset, long length) {
      byte[] content = storage.content();
      int end = (int) offset;
      boolean isZero = content[end] == 0;
      while (end < content.length && (content[end] == 0) == isZero) {
        end++;
      }
      return List.of(isZero ? Extent.hole(end - offset) : Extent.data(end - offset));
    }

    private static void pause(FakeBackend.Call call) {
      boolean isSlow = call.command() == Command.WRITE || call.command() == Command.WRITE_ZEROES;
      LockSupport.parkNanos(isSlow ? 300_000 : 1);
    }

    void run() throws IOException {
      System.out.println(what);
      List<Running> players = new ArrayList<>();
      for (int i = 0; i < CONNECTIONS; i++) {
        SplittableRandom random = new SplittableRandom(seed * CONNECTIONS + i);
        players.add(Running.start(() -> play(random)));
      }
      for (Running player : players) {
        player.join();
      }
      try (Handle handle = scene.open()) {
        read(handle, 0, HALVES, false);
        ByteBuffer cached = ByteBuffer.allocate(HALVES * HALF);
        handle.read(cached, START);
        handle.flush();
        byte[] stored = Arrays.copyOfRange(storage.durable(), START, START + HALVES * HALF);
        assertThat(cached.flip()).as(what).isEqualTo(ByteBuffer.wrap(stored));
      }
      scene.close();
    }

    private void play(SplittableRandom random) throws IOException {
      try (Handle handle = scene.open()) {
        while (left.getAndDecrement() > 0) {
          command(handle, random);
        }
      }
    }

    private void command(Handle handle, SplittableRandom random) throws IOException {
      int kind = random.nextInt(100);
      boolean atOnce = random.nextBoolean();
      int count = random.nextInt(1, HALVES);
      int first = random.nextInt(HALVES - count + 1);
      if (kind < 35) {
        read(handle, first, count, atOnce);
      } else if (kind < 55) {
        change(first, count, value -> write(handle, first, filled(count, value), atOnce));
      } else if (kind < 70) {
        change(first, count, value -> handle.write(filled(count, value), offset(first), FUA));
      } else if (kind < 75) {
        int[] changes = history.begin(first, count, 0);
        handle.zero(offset(first), (long) count * HALF, CommandFlags.NONE);
        history.end(changes);
      } else if (kind < 85) {
        map(handle, first);
      } else if (kind < 95) {
        // Fills the cache with dirty and with clean blocks.
        long other = BLOCK * random.nextLong(4, 40);
        if (kind < 92) {
          Scene.write(handle, other, 1);
        } else {
          Scene.read(handle, other);
        }
      } else {
        handle.flush();
      }
    }

    /** A change to a new value. */
    @FunctionalInterface
    private interface Change {
      void to(int value) throws IOException;
    }

    private void change(int first, int count, Change change) throws IOException {
      int value = values.incrementAndGet();
      int[] changes = history.begin(first, count, value);
      change.to(value);
      history.end(changes);
    }

    private static ByteBuffer filled(int count, int value) {
      ByteBuffer data = ByteBuffer.allocate(count * HALF);
      while (data.hasRemaining()) {
        data.putInt(encoded(value));
      }
      return data.flip();
    }

    /** Encodes a value as a number of which no byte is 0. */
    private static int encoded(int value) {
      return 0x40400000 | (value >>> 6 & 0x3f) << 8 | 0x4000 | (value & 0x3f) | 0x40;
    }

    private static int decoded(int number) {
      return (number >>> 8 & 0x3f) << 6 | (number & 0x3f);
    }

    private static void write(Handle handle, int first, ByteBuffer data, boolean atOnce)
        throws IOException {
      long offset = offset(first);
      if (!atOnce || !handle.tryNow(Operation.write(data, offset, CommandFlags.NONE))) {
        // About the time in which the server hands the call to another thread.
        LockSupport.parkNanos(300_000);
        handle.write(data, offset, CommandFlags.NONE);
      }
    }

    private void read(Handle handle, int first, int count, boolean atOnce) throws IOException {
      ByteBuffer into = ByteBuffer.allocate(count * HALF);
      int begin = history.now();
      if (!atOnce || !handle.tryNow(Operation.read(into, offset(first)))) {
        handle.read(into, offset(first));
      }
      int end = history.now();
      for (int i = 0; i < count; i++) {
        saw(first + i, decoded(into.getInt(i * HALF)), begin, end);
        assertThat(into.getInt((i + 1) * HALF - 4)).as(what).isEqualTo(into.getInt(i * HALF));
      }
    }

    private void saw(int half, int value, int begin, int end) {
      assertThat(history.mayBe(half, value, begin))
          .as("%s: half sector %d is %d, which is too old", what, half, value)
          .isTrue();
      // Zero is exempt: a half sector is zeroed more than once.
      assertThat(value == 0 || history.maySee(half, value, begin, end))
          .as("%s: half sector %d is %d, as it was before it was another", what, half, value)
          .isTrue();
    }

    /**
     * Checks extents of zeroes as if they had been read, also past the range that was asked for.
     */
    private void map(Handle handle, int first) throws IOException {
      int begin = history.now();
      List<Extent> extents = handle.extents(offset(first), HALF, 4);
      long at = offset(first);
      for (Extent extent : extents) {
        for (int half = first; half < HALVES && extent.zero(); half++) {
          long start = offset(half);
          if (start >= at && start + HALF <= at + extent.length()) {
            saw(half, 0, begin, begin);
          }
        }
        at += extent.length();
      }
    }
  }
}
