package nbd.cli;

import java.io.IOException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;
import nbd.check.Examination;
import nbd.check.Verdict;

/**
 * A check in a thread of its own, so that a signal gives the verdict so far also while the server,
 * or the restart command, takes its time.
 */
final class RunningCheck {
  private static final long PATIENCE_SECONDS = 1;

  private final Examination examination;
  private final CompletableFuture<Verdict> verdict = new CompletableFuture<>();
  private final CompletableFuture<Integer> status = new CompletableFuture<>();

  private RunningCheck(Examination examination) {
    this.examination = examination;
  }

  /** Takes a check, which SIGINT and SIGTERM end from now on. */
  static RunningCheck of(Examination examination) {
    RunningCheck check = new RunningCheck(examination);
    ExitStatus.onSignal(check::stop);
    return check;
  }

  /** A way to a verdict. */
  @FunctionalInterface
  private interface Way {
    Verdict go() throws IOException;
  }

  private void complete(Way way) {
    try {
      verdict.complete(way.go());
    } catch (Throwable failure) {
      verdict.completeExceptionally(failure);
    }
  }

  /** Ends the check; returns the program's status once the verdict has been printed. */
  private int stop() {
    examination.stop();
    if (!isDoneSoon(verdict)) {
      complete(examination::abandon);
    }
    return isDoneSoon(status) ? status.join() : Check.NOT_RUN;
  }

  private static boolean isDoneSoon(CompletableFuture<?> future) {
    return future
        .handle((done, failure) -> true)
        .completeOnTimeout(false, PATIENCE_SECONDS, TimeUnit.SECONDS)
        .join();
  }

  /** Starts the check. */
  void start() {
    Thread.ofPlatform().daemon().name("check").start(() -> complete(examination::run));
  }

  /**
   * Waits for the verdict.
   *
   * @throws IOException as {@link Examination#run}
   */
  Verdict verdict() throws IOException {
    try {
      return verdict.join();
    } catch (CompletionException failed) {
      if (failed.getCause() instanceof IOException said) {
        throw said;
      }
      if (failed.getCause() instanceof OutOfMemoryError said) {
        throw said;
      }
      throw failed;
    }
  }

  /** Reports that the verdict has been printed, and the program's status. */
  void ended(int withStatus) {
    status.complete(withStatus);
  }
}
