package nbd.cli;

import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.IntSupplier;
import picocli.CommandLine.ExitCode;

/**
 * How the program ends. The JVM answers SIGTERM and SIGINT with its shutdown hooks and a status of
 * its own; here the hook does the orderly end and gives the status.
 */
final class ExitStatus {
  private static final AtomicBoolean EXITING = new AtomicBoolean();

  private ExitStatus() {}

  /**
   * Runs the program and ends the process: with the program's status, or, after a line that says
   * why, with 1 if it throws. Hooks of {@link #onSignal} and {@link #beforeSignal} do not run.
   */
  static void exitAfter(Callable<Integer> program) {
    int status = ExitCode.SOFTWARE;
    try {
      status = program.call();
    } catch (Throwable failure) {
      Failure.report(failure);
    }
    EXITING.set(true);
    try {
      System.exit(status);
    } finally {
      // There was no memory even for that.
      Runtime.getRuntime().halt(status);
    }
  }

  /**
   * Makes a signal run this, and end the program with the status that it returns.
   *
   * @param end may be called at any time after this call, by a thread of its own
   */
  static void onSignal(IntSupplier end) {
    addHook(
        () -> {
          int status = ExitCode.SOFTWARE;
          try {
            status = end.getAsInt();
            System.out.flush();
          } finally {
            Runtime.getRuntime().halt(status);
          }
        });
  }

  /**
   * Makes a signal run this, and then end the program with the status of a program that a signal
   * has killed: 128 and the signal's number.
   *
   * @param end may be called at any time after this call, by a thread of its own
   */
  static void beforeSignal(Runnable end) {
    addHook(end);
  }

  private static void addHook(Runnable onSignal) {
    Runtime.getRuntime()
        .addShutdownHook(
            Thread.ofPlatform()
                .name("signal")
                .unstarted(
                    () -> {
                      if (!EXITING.get()) {
                        onSignal.run();
                      }
                    }));
  }
}
