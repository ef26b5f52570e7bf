package nbd.cli;

import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.IntSupplier;

/**
 * How the program ends. The JVM answers SIGTERM and SIGINT with its shutdown hooks and a status of
 * its own; here the hook does the orderly end and gives the status.
 */
final class ExitStatus {
  private static final AtomicBoolean EXITING = new AtomicBoolean();

  private ExitStatus() {}

  /** Ends the program; hooks of {@link #onSignal} do not run. */
  static void exit(int status) {
    EXITING.set(true);
    System.exit(status);
  }

  /**
   * Makes a signal run this, and end the program with the status that it returns.
   *
   * @param end may be called at any time after this call, by a thread of its own
   */
  static void onSignal(IntSupplier end) {
    Runtime.getRuntime()
        .addShutdownHook(
            Thread.ofPlatform()
                .name("signal")
                .unstarted(
                    () -> {
                      if (!EXITING.get()) {
                        int status = end.getAsInt();
                        System.out.flush();
                        Runtime.getRuntime().halt(status);
                      }
                    }));
  }
}
