package nbd.cli;

import nbd.server.Server;
import nbd.storage.DirectMemory;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** How much memory serve may use for requests in flight. */
final class MemoryOptions {
  private static final String MEMORY = "--memory";

  @Option(
      names = MEMORY,
      paramLabel = "SIZE",
      converter = Size.Converter.class,
      description =
          "Limit the memory for requests in flight of all connections together, beyond half a MiB"
              + " for each: at least 33M (default: a quarter of the memory that the JVM gives"
              + " out).")
  private @Nullable Long given;

  /**
   * What is wrong with the option, or with a cache beside it; null if nothing is.
   *
   * @param cache what a cache takes of the same memory, in bytes; 0 without one
   */
  @Nullable String problem(long cache) {
    long limit = DirectMemory.JVM.limit();
    if (cache > 0 && cache > limit - bytes()) {
      return ("%s: %dM and %dM for requests in flight (%s) are more than the %dM of direct memory"
              + " that the JVM gives out; raise -XX:MaxDirectMemorySize")
          .formatted(FilterOptions.CACHE_SIZE, cache >> 20, bytes() >> 20, MEMORY, limit >> 20);
    }
    if (given == null) {
      return null;
    }
    if (given < Server.MINIMUM_MEMORY) {
      return "%s: %d bytes are too few, the longest request alone takes %dM"
          .formatted(MEMORY, given, Server.MINIMUM_MEMORY >> 20);
    }
    return given > limit
        ? "%s: the JVM gives out no more than %dM of direct memory; raise -XX:MaxDirectMemorySize"
            .formatted(MEMORY, limit >> 20)
        : null;
  }

  /** In bytes. */
  long bytes() {
    return given == null
        ? byDefault(Runtime.getRuntime().maxMemory(), DirectMemory.JVM.limit())
        : given;
  }

  /** What holds where the user says nothing, on a JVM with so many bytes of heap and outside it. */
  static long byDefault(long heap, long direct) {
    return Math.max(Server.MINIMUM_MEMORY, Math.min(heap, direct) / 4);
  }
}
