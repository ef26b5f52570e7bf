package nbd.cli;

/** Logging to standard error; set up before the first log entry. */
final class Logging {
  private Logging() {}

  /**
   * Chooses what is logged.
   *
   * @param verbose whether to log what is usual, too, and the stack of each failure
   */
  static void configure(boolean verbose) {
    System.setProperty("tinylog.level", verbose ? "debug" : "info");
    System.setProperty("tinylog.writer.stacks", "" + verbose);
  }
}
