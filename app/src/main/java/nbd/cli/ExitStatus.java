package nbd.cli;

import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.IntSupplier;
import picocli.CommandLine.ExitCode;

/**
 * The program's exit status. On SIGTERM and SIGINT the JVM runs its shutdown hooks and ends with a
 * status of its own; here a hook ends the server in order, and may decide the status.
 */
final class ExitStatus {
  private static final AtomicBoolean EXITING = new AtomicBoolean();

  private ExitStatus() {}

  /**
   * Runs the program and ends the process with the program's status. If the program throws, prints
   * why and ends the process with 1. The hooks of {@link #onSignal} and {@link #beforeSignal} do
   * not run.
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
      // There was no memory even to exit.
      Runtime.getRuntime().halt(status);
    }
  }

  /**
   * Ends the server on a signal, and the process with the status that this returns.
   *
   * @param end called by a thread of its own, at any time from now on
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
   * Ends the server on a signal, and the process as if the signal had killed it, with status 128
   * and the signal's number.
   *
   * @param end called by a thread of its own, at any time from now on
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
