package nbd.filter.cache;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import nbd.backend.Handle;
import nbd.protocol.CommandFlags;

/** A small cache over test storage, and the calls of clients in threads of their own. */
final class Scene implements AutoCloseable {
  static final int BLOCK = 4096;
  static final int SECTOR = 512;

  final TestStorage storage;
  final CacheStatistics statistics = new CacheStatistics();
  final CacheFilter filter;

  Scene(CacheMode mode, int blocks) {
    this(mode, blocks, TestStorage.numbered(1 << 20));
  }

  Scene(CacheMode mode, int blocks, TestStorage storage) {
    this.storage = storage;
    this.filter =
        new CacheFilter(
            storage, new CacheSettings(mode, (long) blocks * BLOCK, BLOCK), true, statistics);
  }

  Handle open() throws IOException {
    return filter.open("", false);
  }

  @Override
  public void close() throws IOException {
    storage.heal();
    filter.close();
  }

  /** Writes one sector that begins with the number. */
  static void write(Handle handle, long offset, long value) throws IOException {
    write(handle, offset, value, CommandFlags.NONE);
  }

  static void write(Handle handle, long offset, long value, CommandFlags flags) throws IOException {
    handle.write(sector(value), offset, flags);
  }

  static ByteBuffer sector(long value) {
    return ByteBuffer.allocate(SECTOR).putLong(0, value);
  }

  /** The number with which the sector begins. */
  static long read(Handle handle, long offset) throws IOException {
    ByteBuffer into = ByteBuffer.allocate(SECTOR);
    handle.read(into, offset);
    return into.getLong(0);
  }

  /** What a sector of numbered storage begins with. */
  static long first(long offset) {
    return -1 - offset;
  }

  /** A call that may fail. */
  @FunctionalInterface
  interface Action {
    void run() throws IOException;
  }

  /** Runs a call in a thread of its own. */
  static Running start(Action action) {
    CompletableFuture<Void> end = new CompletableFuture<>();
    Thread thread =
        Thread.ofVirtual()
            .start(
                () -> {
                  try {
                    action.run();
                    end.complete(null);
                  } catch (IOException | RuntimeException | Error e) {
                    end.completeExceptionally(e);
                  }
                });
    return new Running(thread, end);
  }

  /** A call in a thread of its own. */
  record Running(Thread thread, CompletableFuture<Void> end) {
    /** Waits for its end; a call that hangs fails the test instead of hanging it. */
    void join() throws IOException {
      try {
        end.get(30, TimeUnit.SECONDS);
      } catch (ExecutionException e) {
        if (e.getCause() instanceof IOException failure) {
          throw failure;
        }
        throw new AssertionError(e.getCause());
      } catch (TimeoutException | InterruptedException e) {
        throw new AssertionError("the call did not end", e);
      }
    }

    boolean isDone() {
      return end.isDone();
    }

    /** Waits until it can go no further without somebody else. */
    void awaitParked() {
      while (thread.getState() != Thread.State.WAITING
          && thread.getState() != Thread.State.TIMED_WAITING) {
        if (end.isDone()) {
          throw new AssertionError("it ended instead of waiting");
        }
        Thread.onSpinWait();
      }
    }
  }
}
