package nbd.conformance;

import static org.assertj.core.api.Assertions.assertThat;

import com.sun.management.HotSpotDiagnosticMXBean;
import com.sun.management.HotSpotDiagnosticMXBean.ThreadDumpFormat;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.BufferPoolMXBean;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;
import nbd.server.TestServer;
import nbd.testing.Eventually;

/**
 * The resources that a server holds while no client but the witness is there. Whatever clients do,
 * it has to come back to these.
 *
 * @param descriptors open files and sockets of the process
 * @param threads that run the server's code, virtual ones among them
 * @param handles of the storage that are open
 * @param inFlight the server's own account of its requests' memory, in bytes
 */
record Footprint(long descriptors, long threads, int handles, long inFlight) {
  /** Buffers outside the heap that the server may keep for the next requests, and their slack. */
  private static final long KEPT_BYTES = 192L << 20;

  static Footprint of(TestServer server) {
    return new Footprint(
        openDescriptors(),
        serverThreads(),
        server.contract().openHandles(),
        server.memoryInFlight());
  }

  /** Waits until the server holds no more than this. */
  void awaitReturn(TestServer server, long directBefore) throws InterruptedException {
    Eventually.isTrue("handles are closed", () -> server.contract().openHandles() <= handles);
    Eventually.isTrue("memory is given back", () -> server.memoryInFlight() <= inFlight);
    Eventually.isTrue("descriptors are closed", () -> openDescriptors() <= descriptors);
    Eventually.isTrue("threads end", () -> serverThreads() <= threads);
    assertThat(server.memoryInFlight()).as("the account").isEqualTo(inFlight);
    Eventually.isTrue("native memory is freed", () -> isFreed(directBefore));
  }

  private static boolean isFreed(long directBefore) {
    if (direct() <= directBefore + KEPT_BYTES) {
      return true;
    }
    System.gc();
    return false;
  }

  /** Returns the bytes of all buffers outside the heap. */
  static long direct() {
    return ManagementFactory.getPlatformMXBeans(BufferPoolMXBean.class).stream()
        .filter(pool -> pool.getName().equals("direct"))
        .mapToLong(BufferPoolMXBean::getMemoryUsed)
        .sum();
  }

  private static long openDescriptors() {
    try (Stream<Path> all = Files.list(Path.of("/proc/self/fd"))) {
      return all.count();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  /** Counts the server's threads in a dump, since nothing else lists virtual threads. */
  private static long serverThreads() {
    try {
      Path directory = Files.createTempDirectory("nbd-threads-");
      Path dump = directory.resolve("dump");
      try {
        ManagementFactory.getPlatformMXBean(HotSpotDiagnosticMXBean.class)
            .dumpThreads(dump.toString(), ThreadDumpFormat.TEXT_PLAIN);
        return Stream.of(Files.readString(dump).split("\n\n"))
            .filter(thread -> thread.matches("(?s).*[ /]nbd\\.(server|transmission)\\..*"))
            .filter(thread -> !thread.contains("nbd.conformance.Footprint"))
            .count();
      } finally {
        Files.deleteIfExists(dump);
        Files.delete(directory);
      }
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }
}
