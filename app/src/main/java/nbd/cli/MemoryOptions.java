package nbd.cli;

import nbd.server.Server;
import nbd.storage.DirectMemory;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** The option of serve for the memory of requests in flight. */
final class MemoryOptions {
  private static final String MEMORY = "--memory";

  @Option(
      names = MEMORY,
      paramLabel = "SIZE",
      description =
          "Limit the memory for requests in flight of all connections together, beyond half a MiB"
              + " for each: at least 33M (default: a quarter of the memory that the JVM gives"
              + " out).")
  private @Nullable Long given;

  /**
   * Checks the option.
   *
   * @param cache the bytes that a cache takes of the same memory; 0 without one
   * @throws UsageException if the memory is too little, or more than the JVM has
   */
  void check(long cache) {
    long limit = DirectMemory.JVM.limit();
    // A message is put together only if it is needed: formatting numbers would slow every start.
    if (cache > 0 && cache > limit - bytes()) {
      throw new UsageException(
          ("%s: %dM and %dM for requests in flight (%s) are more than the %dM of direct memory that"
                  + " the JVM gives out; raise -XX:MaxDirectMemorySize")
              .formatted(
                  FilterOptions.CACHE_SIZE, cache >> 20, bytes() >> 20, MEMORY, limit >> 20));
    }
    if (bytes() < Server.MINIMUM_MEMORY) {
      throw new UsageException(
          "%s: %d bytes are too few, the longest request alone takes %dM"
              .formatted(MEMORY, bytes(), Server.MINIMUM_MEMORY >> 20));
    }
    if (given != null && given > limit) {
      throw new UsageException(
          "%s: the JVM gives out no more than %dM of direct memory; raise -XX:MaxDirectMemorySize"
              .formatted(MEMORY, limit >> 20));
    }
  }

  /** The memory, in bytes. */
  long bytes() {
    return given == null
        ? Server.defaultMemory(Runtime.getRuntime().maxMemory(), DirectMemory.JVM.limit())
        : given;
  }
}
