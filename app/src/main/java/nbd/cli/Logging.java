package nbd.cli;

/** Logging to standard error; set up before the first log entry. */
final class Logging {
  private Logging() {}

  /** Chooses what is logged: warnings and errors, or everything. */
  static void configure(boolean verbose) {
    System.setProperty("tinylog.level", verbose ? "debug" : "info");
    if (!verbose) {
      System.setProperty(
          "tinylog.writer.format", "nbd-multiconn: {level|min-size=5}: {message-only}");
    }
  }
}
