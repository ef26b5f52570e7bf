package nbd.testing;

import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** A call in a thread of its own. */
public record Running(Thread thread, CompletableFuture<Void> end) {
  /** A call that may fail. */
  @FunctionalInterface
  public interface Call {
    void run() throws IOException;
  }

  /** Runs a call in a thread of its own. */
  public static Running start(Call call) {
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

  /** Waits for the call's end, and throws its failure; a call that hangs fails the test. */
  public void join() throws IOException {
    join(Duration.ofMinutes(2));
  }

  /** Waits as {@link #join()} does, but with a longer patience. */
  public void join(Duration patience) throws IOException {
    try {
      end.get(patience.toMillis(), TimeUnit.MILLISECONDS);
    } catch (ExecutionException e) {
      if (e.getCause() instanceof IOException failure) {
        throw failure;
      }
      throw new AssertionError(e.getCause());
    } catch (TimeoutException | InterruptedException e) {
      throw new AssertionError("the call did not end", e);
    }
  }

  public boolean isDone() {
    return end.isDone();
  }

  private boolean isParked() {
    Thread.State state = thread.getState();
    return state == Thread.State.WAITING || state == Thread.State.TIMED_WAITING;
  }

  /**
   * Waits until the threads of all calls are waiting at the same time. If one is seen to run, those
   * before it are looked at again: they may have waited for a lock that it had.
   */
  public static void awaitParked(List<Running> calls) {
    int quietRounds = 0;
    while (quietRounds < 3) {
      boolean isQuiet = calls.stream().allMatch(Running::isParked);
      calls.forEach(Running::awaitParked);
      quietRounds = isQuiet ? quietRounds + 1 : 0;
    }
  }

  /** Waits until the call's thread is waiting, and fails if the call ends instead. */
  public void awaitParked() {
    while (!isParked()) {
      if (end.isDone()) {
        throw new AssertionError("it ended instead of waiting");
      }
      Thread.onSpinWait();
    }
  }
}
