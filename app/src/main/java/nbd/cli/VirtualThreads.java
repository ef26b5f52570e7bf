package nbd.cli;

/** Sets the virtual threads' scheduler up, before the first of them starts. */
final class VirtualThreads {
  private static final String PARALLELISM = "jdk.virtualThreadScheduler.parallelism";

  private VirtualThreads() {}

  /** Leaves alone what the user has set. */
  static void configure() {
    String carriers = System.getProperty(PARALLELISM);
    if (carriers == null && Integer.getInteger("nbd.par") != null) {
      System.setProperty(PARALLELISM, System.getProperty("nbd.par"));
    }
  }
}
