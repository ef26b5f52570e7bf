package nbd.filter.cache;

import static nbd.filter.cache.Scene.BLOCK;
import static nbd.filter.cache.Scene.SECTOR;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import nbd.backend.Handle;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import org.jetbrains.lincheck.Lincheck;
import org.junit.jupiter.api.Test;

/**
 * Explores systematically how the calls of two or three clients on one block interleave: after
 * each, cache and storage are what the calls allow. The property {@code nbd.cache.invocations} says
 * how many interleavings are tried.
 */
class CacheModelTest {
  /** What only lambdas share is taken for a thread's own by Lincheck, and is not explored. */
  private static final AtomicReference<Object> SHARED = new AtomicReference<>();

  private static final int INVOCATIONS = Integer.getInteger("nbd.cache.invocations", 150);
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);

  /** A client's calls. */
  @FunctionalInterface
  private interface Calls {
    void on(Model model) throws IOException;
  }

  /** What must be so when all calls have ended. */
  @FunctionalInterface
  private interface Check {
    void of(Model model) throws IOException;
  }

  private static final class Model {
    final TestStorage storage;
    final ExportCache cache;
    final Handle handle;

    Model(TestStorage storage) throws IOException {
      this.storage = storage;
      CacheSettings settings = new CacheSettings(CacheMode.WRITEBACK, 4L * BLOCK, BLOCK);
      cache =
          new ExportCache(
              storage,
              "",
              false,
              settings,
              new Frames(BLOCK, 4),
              new Buffers(),
              new CacheStatistics(),
              false);
      handle = new CacheHandle(cache, false, () -> {});
    }

    void write(int sector, long value, CommandFlags flags) throws IOException {
      ByteBuffer data = ByteBuffer.allocate(SECTOR).putLong(0, value);
      handle.write(data, (long) sector * SECTOR, flags);
    }

    long read(int sector) throws IOException {
      ByteBuffer data = ByteBuffer.allocate(SECTOR);
      handle.read(data, (long) sector * SECTOR);
      return data.getLong(0);
    }

    long durable(int sector) {
      return storage.durableAt(sector * SECTOR);
    }

    /** Whatever happened: a flush later on, cache and storage agree. */
    void agree() throws IOException {
      handle.flush();
      for (int sector = 0; sector < 3; sector++) {
        is(durable(sector) == read(sector), "cache and storage differ");
      }
      is(cache.dirtyBytes() == 0, "something stays dirty");
    }
  }

  private static void is(boolean condition, String otherwise) {
    if (!condition) {
      throw new AssertionError(otherwise);
    }
  }

  @Test
  void aWriteThatMeetsAFlushIsNeitherLostNorTakenForDurable() {
    explore(
        model -> {
          model.agree();
          is(model.durable(0) == 2 && model.durable(1) == 3, "a write is lost");
        },
        model -> {
          model.write(0, 1, CommandFlags.NONE);
          model.write(0, 2, CommandFlags.NONE);
          model.handle.flush();
          is(model.durable(0) == 2, "a flush did not cover what was answered");
        },
        model -> {
          model.write(1, 3, CommandFlags.NONE);
          model.handle.flush();
          is(model.durable(1) == 3, "a flush did not cover what was answered");
        });
  }

  @Test
  void aReadThatMeetsAWriteReturnsOneOfBothAndKeepsTheNewer() {
    explore(
        model -> {
          is(model.read(0) == 1, "an older value was kept");
          model.agree();
        },
        model -> model.write(0, 1, CommandFlags.NONE),
        model -> {
          long value = model.read(0);
          is(value == 0 || value == 1, "nobody wrote that");
          is(model.read(0) >= value, "time goes back");
        });
  }

  @Test
  void aWriteThroughMeetsAWriteIntoTheCacheAndAWriteBack() {
    explore(
        Model::agree,
        model -> {
          model.write(0, 1, FUA);
          is(model.durable(0) > 0, "not durable");
        },
        model -> {
          model.write(0, 2, CommandFlags.NONE);
          model.handle.flush();
        });
  }

  @Test
  void zeroesMeetAWriteAndAFlush() {
    explore(
        Model::agree,
        model -> model.handle.zero(0, 2 * SECTOR, CommandFlags.NONE),
        model -> {
          model.write(1, 2, CommandFlags.NONE);
          model.handle.flush();
          long now = model.durable(1);
          is(now == 0 || now == 2, "nobody wrote that");
        });
  }

  @Test
  void zeroesMeetARead() {
    explore(
        true,
        model -> {
          is(model.read(0) == 0, "what was there before was kept");
          model.agree();
        },
        model -> model.handle.zero(0, SECTOR, CommandFlags.NONE),
        model -> model.read(1));
  }

  private static void explore(Check check, Calls... clients) {
    explore(false, check, clients);
  }

  private static void explore(boolean isNumbered, Check check, Calls... clients) {
    Lincheck.runConcurrentTest(
        INVOCATIONS,
        () -> {
          try {
            int size = 2 * BLOCK;
            Model model =
                new Model(isNumbered ? TestStorage.numbered(size) : new TestStorage(size));
            SHARED.set(model);
            inThreads(model, clients);
            check.of(model);
          } catch (IOException e) {
            throw new AssertionError(e);
          }
        });
  }

  private static void inThreads(Model model, Calls... clients) {
    AtomicReference<Throwable> failure = new AtomicReference<>();
    List<Thread> threads = new ArrayList<>();
    for (Calls client : clients) {
      threads.add(
          new Thread(
              () -> {
                try {
                  client.on(model);
                } catch (AssertionError | IOException e) {
                  failure.set(e);
                }
              }));
    }
    threads.forEach(Thread::start);
    for (Thread thread : threads) {
      try {
        thread.join();
      } catch (InterruptedException e) {
        throw new AssertionError(e);
      }
    }
    Throwable thrown = failure.get();
    if (thrown != null) {
      throw new AssertionError(thrown);
    }
  }
}
