package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;
import nbd.check.Advertised;
import nbd.check.Finding;
import nbd.check.Finding.Severity;
import nbd.check.RandomHistory;
import nbd.check.Target;
import nbd.client.ClientSettings;
import nbd.client.NbdUri;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/**
 * The check of real servers: those that keep the promise are never accused, the others are
 * convicted. The property {@code nbd.check.histories} says how many histories are made against each
 * of them, {@code nbd.check.seed} repeats the choices of a run that failed (not its interleaving).
 */
@Timeout(3600)
final class CheckedServersIT {
  private static final int HISTORIES = Integer.getInteger("nbd.check.histories", 3);
  private static final long SEED =
      Long.getLong("nbd.check.seed", ThreadLocalRandom.current().nextInt(1 << 30));

  private static final Duration SHORT = Duration.ofMillis(150);
  private static final Duration SOME = Duration.ofSeconds(4);
  private static final Duration LONG = Duration.ofMinutes(1);
  private static final int SIZE = 1 << 20;

  /** Storage in which each connection has a cache of its own, for reads and for writes. */
  private static final String PLUGIN =
      """
      import nbdkit
      import time

      API_VERSION = 2
      SECTOR = 512
      disk = [bytes(SECTOR)] * 2048

      class Connection:
          def __init__(self):
              self.written, self.read = {}, {}

          def sector(self, number):
              if number in self.written:
                  return self.written[number]
              return self.read.setdefault(number, disk[number])

          def write_back(self):
              for number, data in self.written.items():
                  disk[number] = data
              self.written, self.read = {}, {}

      def thread_model():
          return nbdkit.THREAD_MODEL_PARALLEL

      def open(readonly):
          return Connection()

      def close(c):
          c.write_back()

      def get_size(c):
          return len(disk) * SECTOR

      def block_size(c):
          return (SECTOR, 4096, 1 << 25)

      def can_multi_conn(c):
          return False

      def pread(c, buf, offset, flags):
          for at in range(0, len(buf), SECTOR):
              buf[at:at + SECTOR] = c.sector((offset + at) // SECTOR)

      def pwrite(c, buf, offset, flags):
          for at in range(0, len(buf), SECTOR):
              c.written[(offset + at) // SECTOR] = bytes(buf[at:at + SECTOR])

      def flush(c, flags):
          c.write_back()
          time.sleep(0.0005)
      """;

  @TempDir private Path directory;

  /** The histories that a test has made, and the sectors that they have read. */
  private int histories;

  private long readSectors;

  private static Target target(String uri) throws IOException {
    return Target.open(NbdUri.parse(uri), ClientSettings.DEFAULT);
  }

  private Path disk() throws IOException {
    Path disk = directory.resolve("disk");
    try (RandomAccessFile file = new RandomAccessFile(disk.toFile(), "rw")) {
      file.setLength(SIZE);
    }
    return disk;
  }

  // No false alarm.

  /** Makes the histories that are missing. */
  private void isNeverAccusedAt(String uri) throws IOException {
    System.out.println("-Dnbd.check.seed=" + SEED + " for " + uri);
    Target target = target(uri);
    while (histories < HISTORIES) {
      RandomHistory history = RandomHistory.drive(target, SEED + histories, SHORT);
      assertThat(history.violation()).as("-Dnbd.check.seed=" + (SEED + histories)).isEmpty();
      readSectors += history.readSectors();
      histories++;
    }
    assertThat(readSectors).isPositive();
  }

  private void isNeverAccused(String backend, String... options) throws Exception {
    try (ServeProcess serve = ServeProcess.on(directory, backend, options)) {
      isNeverAccusedAt(serve.uri());
      assertThat(Advertised.examine(target(serve.uri())))
          .filteredOn(found -> found.severity() != Severity.NOTE && !isOfTime(found))
          .isEmpty();
      serve.stopQuietly();
    }
  }

  /** Says whether it is of a time that was measured, which a busy disk may lengthen. */
  private static boolean isOfTime(Finding found) {
    return found.severity() == Severity.WARNING && found.kind() == Finding.Kind.FAST_ZERO;
  }

  @Test
  void aFile() throws Exception {
    isNeverAccused("file:" + disk());
  }

  @Test
  void memory() throws Exception {
    isNeverAccused("memory:1M");
  }

  @Test
  void emulationOverPrivateCaches() throws Exception {
    isNeverAccused("memory:1M", "--connection-cache", "--multi-conn-mode=emulate");
  }

  @Test
  void aCacheWithWriteBack() throws Exception {
    isNeverAccused("file:" + disk(), "--cache=writeback");
  }

  @Test
  void anUpstream() throws Exception {
    Path other = Files.createDirectory(directory.resolve("other"));
    try (UpstreamProcess server = UpstreamProcess.nbdkit(other, "memory", "1M")) {
      isNeverAccused(server.uri());
    }
  }

  @Test
  void qemuNbd() throws Exception {
    try (UpstreamProcess server =
        UpstreamProcess.qemuNbd(directory, "-e", "8", disk().toString())) {
      isNeverAccusedAt(server.uri());
    }
  }

  /**
   * nbdkit 1.32 aborts if a client closes the socket while several requests are in flight: one
   * thread that cannot reply closes nbdkit's side, and the next one asserts that it is open. The
   * histories do so at times, and go on with another nbdkit then.
   */
  private void nbdkitIsNeverAccused(String... plugin) throws Exception {
    for (int started = 1; histories < HISTORIES; started++) {
      Path place = Files.createDirectory(directory.resolve("nbdkit-" + started));
      try (UpstreamProcess server = UpstreamProcess.nbdkit(place, plugin)) {
        try {
          isNeverAccusedAt(server.uri());
        } catch (IOException gone) {
          assertThat(server.said())
              .as("nbdkit's output, after: " + gone)
              .contains("raw_send_socket: Assertion `sock >= 0' failed");
        }
      }
    }
  }

  @Test
  void nbdkitFile() throws Exception {
    nbdkitIsNeverAccused("file", disk().toString());
  }

  @Test
  void nbdkitMemory() throws Exception {
    nbdkitIsNeverAccused("memory", "1M");
  }

  @Test
  void nbdServer() throws Exception {
    try (UpstreamProcess server = UpstreamProcess.nbdServer(directory, disk())) {
      isNeverAccusedAt(server.uri("disk"));
    }
  }

  // Convictions.

  private static void isConvicted(String uri) throws IOException {
    System.out.println("-Dnbd.check.seed=" + SEED + " for " + uri);
    assertThat(RandomHistory.drive(target(uri), SEED, LONG).violation()).isPresent();
  }

  @Test
  void privateCachesThatAreTrustedAreConvicted() throws Exception {
    try (ServeProcess serve =
        ServeProcess.on(directory, "memory:1M", "--connection-cache", "--multi-conn-mode=unsafe")) {
      isConvicted(serve.uri());
      serve.stopQuietly();
    }
  }

  @Test
  void nbdkitsFilterOverPrivateCachesIsConvicted() throws Exception {
    Path plugin = Files.writeString(directory.resolve("caching.py"), PLUGIN);
    try (UpstreamProcess server =
        UpstreamProcess.nbdkit(
            directory,
            "--filter=multi-conn",
            "python",
            plugin.toString(),
            "multi-conn-mode=emulate")) {
      isConvicted(server.uri());
    }
  }

  @Test
  void emulationOverPrivateCachesIsNotCoherent() throws Exception {
    try (ServeProcess serve =
        ServeProcess.on(
            directory, "memory:1M", "--connection-cache", "--multi-conn-mode=emulate")) {
      RandomHistory history = RandomHistory.drive(target(serve.uri()), SEED, SOME);
      assertThat(history.incoherence()).isPresent();
      assertThat(history.violation()).isEmpty();
      serve.stopQuietly();
    }
  }
}
