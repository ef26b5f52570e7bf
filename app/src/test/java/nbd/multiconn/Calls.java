package nbd.multiconn;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import nbd.backend.Handle;
import nbd.protocol.CommandFlags;

/** The calls of a handle as tests need them: with any data, and in threads of their own. */
final class Calls {
  private Calls() {}

  static void read(Handle handle) throws IOException {
    handle.read(ByteBuffer.allocate(512), 0);
  }

  static void write(Handle handle) throws IOException {
    handle.write(ByteBuffer.allocate(512), 0, CommandFlags.NONE);
  }

  static void zero(Handle handle) throws IOException {
    handle.zero(0, 512, CommandFlags.NONE);
  }

  static void trim(Handle handle) throws IOException {
    handle.trim(0, 512, CommandFlags.NONE);
  }

  /** Runs a call in a thread of its own. */
  static Running start(FakeBackend.Hook call) {
    CompletableFuture<Void> end = new CompletableFuture<>();
    Thread thread =
        Thread.ofVirtual()
            .start(
                () -> {
                  try {
                    call.run();
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
