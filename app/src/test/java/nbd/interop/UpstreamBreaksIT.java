package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.RawClient;
import nbd.testing.Relay;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The effect on clients and on the log of a server behind that is killed or cut off. */
@Timeout(300)
final class UpstreamBreaksIT {
  private static final int JOBS = 4;
  private static final int JOB_BYTES = 4 << 20;
  private static final int SIZE = JOBS * JOB_BYTES;
  private static final int KILLS = 4;
  private static final long COOKIE = 77;
  private static final int NBD_ESHUTDOWN = 108;

  @TempDir private Path directory;
  private Path disk;

  @BeforeEach
  void create() throws IOException {
    disk = Files.write(directory.resolve("disk.img"), new byte[SIZE]);
  }

  private ServeProcess serve(String uri, String... more) throws Exception {
    return ServeProcess.on(directory, uri, more);
  }

  private static List<RawClient> connect(ServeProcess serve, int count) throws IOException {
    List<RawClient> clients = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      RawClient client = serve.client();
      clients.add(client);
    }
    return clients;
  }

  private static long count(String text, String what) {
    return text.lines().filter(line -> line.contains(what)).count();
  }

  // Without --reconnect.

  @ParameterizedTest(name = "an upstream that is multi-conn: {0}")
  @ValueSource(booleans = {false, true})
  void writesThatWereLostFailTheNextFlushOfEveryConnectionExactlyOnce(boolean multiConn)
      throws Exception {
    String[] arguments = {
      "--filter=multi-conn",
      "file",
      disk.toString(),
      "multi-conn-mode=" + (multiConn ? "plugin" : "disable")
    };
    try (UpstreamProcess nbdkit = UpstreamProcess.nbdkit(directory, arguments);
        Relay relay = Relay.to(nbdkit.address());
        ServeProcess serve = serve(relay.uri(""), "-v")) {
      List<RawClient> clients = connect(serve, 4);
      clients.getFirst().write(0, Bytes.random(1, 4096));
      relay.cut(0);
      if (multiConn) {
        // Until the cut is noticed, another connection's flush still covers this one's writes.
        Eventually.isTrue("it is noticed", () -> serve.said(": the server closed the connection"));
        clients.getFirst().call(NBD_ESHUTDOWN, 0, RawClient.FLUSH, 0, 0);
      }
      for (RawClient other : clients.subList(1, 4)) {
        other.call(RawClient.EIO, 0, RawClient.FLUSH, 0, 0);
        other.flush().write(8192, Bytes.random(2, 512)).flush();
      }
      clients.getFirst().call(NBD_ESHUTDOWN, 0, RawClient.READ, 0, 512);
      connect(serve, 1).getFirst().flush();
      serve.stop();
      assertThat(count(serve.err(), "every connection's next flush fails")).isEqualTo(1);
      assertThat(serve.err()).contains("writes to export \"\" were lost");
    }
  }

  /** nbdkit's cache is multi-conn, and forgets what was not flushed when it is killed. */
  @ParameterizedTest(name = "{0}")
  @ValueSource(
      strings = {
        "--multi-conn-track-dirty=connection",
        "--multi-conn-track-dirty=fast",
        "--multi-conn-track-dirty=off",
        "--share-connection"
      })
  void aFlushOfAConnectionThatCameAfterARestartDoesNotHideWhatTheRestartLost(String option)
      throws Exception {
    try (UpstreamProcess nbdkit =
            UpstreamProcess.nbdkit(directory, "--filter=cache", "file", disk.toString());
        ServeProcess serve = serve(nbdkit.uri(), option, "-v")) {
      RawClient writer = connect(serve, 1).getFirst();
      writer.write(0, Bytes.random(1, 4096));
      nbdkit.kill();
      // Until the end is noticed, a later flush still covers the write, and a client may share it.
      Eventually.isTrue("it is noticed", () -> serve.said(": the server closed the connection"));
      nbdkit.startAgain();
      List<RawClient> later = connect(serve, 2);

      for (RawClient client : later) {
        client.call(RawClient.EIO, 0, RawClient.FLUSH, 0, 0);
        client.write(8192, Bytes.random(2, 512)).flush();
      }
      assertThat(Files.readAllBytes(disk)).startsWith(new byte[8192]);
      writer.call(NBD_ESHUTDOWN, 0, RawClient.FLUSH, 0, 0);
      connect(serve, 1).getFirst().flush();
      serve.stop();
      assertThat(count(serve.err(), "every connection's next flush fails")).isEqualTo(1);
    }
  }

  @Test
  void whatWasFlushedIsNotReportedAsLost() throws Exception {
    try (UpstreamProcess nbdkit = UpstreamProcess.nbdkit(directory, "file", disk.toString());
        Relay relay = Relay.to(nbdkit.address());
        ServeProcess serve = serve(relay.uri(""))) {
      List<RawClient> clients = connect(serve, 2);
      clients.get(0).write(0, Bytes.random(1, 4096));
      clients.get(1).flush();
      relay.cut(0);
      clients.get(1).write(0, (byte) 1).flush();
      serve.stop();
    }
  }

  @Test
  void whatIsInFlightFailsWhenTheUpstreamIsKilledAndTheNextClientIsServedWhenItIsBack()
      throws Exception {
    CachingPlugin plugin = new CachingPlugin(directory);
    try (UpstreamProcess nbdkit = UpstreamProcess.nbdkit(directory, plugin.arguments());
        ServeProcess serve = serve(nbdkit.uri(), "--connect-timeout=2m")) {
      List<RawClient> clients = connect(serve, 2);
      byte[] block = new byte[CachingPlugin.BLOCK];
      plugin.hold("pwrite", 1);
      plugin.hold("pread", 2);
      clients.get(0).request(0, RawClient.WRITE, COOKIE, 0, block.length, block);
      clients.get(1).request(0, RawClient.READ, COOKIE, 0, block.length);
      plugin.awaitHeld("pwrite", 1);
      plugin.awaitHeld("pread", 2);
      nbdkit.kill();
      clients.get(0).expectReply(RawClient.EIO, COOKIE);
      clients.get(1).expectReply(RawClient.EIO, COOKIE);
      plugin.release("pwrite", 1);
      plugin.release("pread", 2);
      try (RawClient early = RawClient.connect(serve.address())) {
        early.hello(3).option(RawClient.GO, RawClient.infoData(""));
        assertThat(early.expectError(RawClient.GO, RawClient.ERR_UNKNOWN))
            .contains("cannot be opened");
        Eventually.isTrue("the log says why", () -> serve.said("cannot connect"));
      }

      nbdkit.startAgain();

      connect(serve, 1).getFirst().read(0, block.length);
      serve.stop();
    }
  }

  @Test
  void fioFailsAndNothingHangs() throws Exception {
    try (UpstreamProcess nbdkit = UpstreamProcess.nbdkit(directory, "file", disk.toString());
        ServeProcess serve = serve(nbdkit.uri())) {
      // It would not come to its end by itself.
      Fio fio = new Fio(directory, serve, "--time_based", "--runtime=1h");
      fio.awaitProgress(disk);
      nbdkit.kill();
      assertThat(fio.awaitEnd()).as(fio.said()).isNotZero();
      nbdkit.startAgain();
      connect(serve, 1).getFirst().read(0, 512);
      serve.stop();
      assertThat(serve.err()).contains("lost");
    }
  }

  // With --reconnect.

  /** Servers that can be killed; some of them lose the writes that were not flushed. */
  enum Killed {
    NBDKIT_FILE,
    /** Keeps writes in a file of its own until it is flushed: a kill loses them. */
    NBDKIT_CACHE,
    QEMU_NBD,
    QEMU_NBD_WRITEBACK;

    UpstreamProcess start(Path directory, Path disk) throws Exception {
      return switch (this) {
        case NBDKIT_FILE -> UpstreamProcess.nbdkit(directory, "file", disk.toString());
        case NBDKIT_CACHE ->
            UpstreamProcess.nbdkit(
                directory, "--filter=cache", "file", disk.toString(), "cache=writeback");
        case QEMU_NBD -> UpstreamProcess.qemuNbd(directory, "-e", "16", disk.toString());
        case QEMU_NBD_WRITEBACK ->
            UpstreamProcess.qemuNbd(directory, "-e", "16", "--cache=writeback", disk.toString());
      };
    }
  }

  @ParameterizedTest
  @EnumSource(Killed.class)
  void fioVerifiesWhatItWroteOverSeveralKills(Killed kind) throws Exception {
    try (UpstreamProcess upstream = kind.start(directory, disk);
        ServeProcess serve =
            serve(upstream.uri(), "--reconnect=30s", "--reconnect-buffer=1M", "-v")) {
      Fio fio = new Fio(directory, serve);
      // On a busy machine fio may come to its end before all kills.
      for (int i = 0; i < KILLS && fio.isRunning(); i++) {
        fio.awaitProgress(disk);
        upstream.kill();
        upstream.startAgain();
        long reconnected = i + 1L;
        Eventually.isTrue(
            "the session is back", () -> connectedAgain(serve) >= reconnected || !fio.isRunning());
      }
      assertThat(fio.awaitEnd()).as(fio.said()).isZero();
      assertThat(connectedAgain(serve)).isPositive();
      serve.stop();
    }
  }

  private static long connectedAgain(ServeProcess serve) {
    try {
      return count(serve.err(), "connected again after");
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  @Test
  void whatWasAnsweredAndNotFlushedIsThereAfterAKill() throws Exception {
    try (UpstreamProcess upstream = Killed.NBDKIT_CACHE.start(directory, disk);
        ServeProcess serve = serve(upstream.uri(), "--reconnect=30s")) {
      List<RawClient> clients = connect(serve, 2);
      byte[] data = Bytes.random(3, 4096);
      clients.get(0).write(0, data);
      upstream.kill();
      assertThat(Files.readAllBytes(disk)).as("it is lost upstream").containsOnly(0);
      upstream.startAgain();

      clients.get(1).flush();

      assertThat(Arrays.copyOf(Files.readAllBytes(disk), data.length)).isEqualTo(data);
      assertThat(clients.get(1).read(0, data.length)).isEqualTo(data);
      serve.stop();
      assertThat(serve.err()).contains("connecting again, since");
    }
  }

  @Test
  void anUpstreamThatComesBackWithAnotherSizeIsNotGoneOnWith() throws Exception {
    try (UpstreamProcess upstream = UpstreamProcess.nbdkit(directory, "file", disk.toString());
        ServeProcess serve = serve(upstream.uri(), "--reconnect=30s")) {
      RawClient client = connect(serve, 1).getFirst();
      client.write(0, (byte) 1);
      upstream.kill();
      try (RandomAccessFile file = new RandomAccessFile(disk.toFile(), "rw")) {
        file.setLength(2L * SIZE);
      }
      upstream.startAgain();

      client.call(RawClient.EIO, 0, RawClient.WRITE, 0, 1, new byte[1]);
      client.call(NBD_ESHUTDOWN, 0, RawClient.READ, 0, 1);
      RawClient next = RawClient.connect(serve.address());
      assertThat(next.enter("").size()).isEqualTo(2L * SIZE);
      String why = "it came back with %d bytes instead of %d".formatted(2 * SIZE, SIZE);
      Eventually.isTrue("the log says so", () -> serve.said(why));
      next.close();
      serve.stop();
    }
  }

  @Test
  void anUpstreamThatDoesNotComeBackInTimeIsGivenUp() throws Exception {
    try (UpstreamProcess upstream = UpstreamProcess.nbdkit(directory, "file", disk.toString());
        ServeProcess serve = serve(upstream.uri(), "--reconnect=300ms")) {
      List<RawClient> clients = connect(serve, 2);
      clients.get(0).write(0, (byte) 1);
      upstream.kill();
      clients.get(0).call(RawClient.EIO, 0, RawClient.READ, 0, 1);
      clients.get(0).call(NBD_ESHUTDOWN, 0, RawClient.READ, 0, 1);
      clients.get(1).call(NBD_ESHUTDOWN, 0, RawClient.FLUSH, 0, 0);
      upstream.startAgain();
      RawClient next = connect(serve, 1).getFirst();
      next.read(0, 1);
      Eventually.isTrue("the log says so", () -> serve.said("connecting again failed"));
      serve.stop();
      assertThat(serve.err()).contains("lost");
    }
  }

  /** A run of fio: jobs that write, read, flush and verify, each on its own connection. */
  private static final class Fio {
    private final Process process;
    private final Path said;
    private byte[] seen = new byte[SIZE];

    Fio(Path directory, ServeProcess serve, String... more) throws IOException {
      Tools.need("fio");
      said = directory.resolve("fio");
      List<String> options =
          new ArrayList<>(
              List.of(
                  "--rw=randrw",
                  "--bs=4k",
                  "--numjobs=" + JOBS,
                  "--size=" + JOB_BYTES,
                  "--offset_increment=" + JOB_BYTES,
                  "--iodepth=8",
                  "--fsync=16",
                  "--rate_iops=100,100"));
      options.addAll(List.of(more));
      process = Tools.start(said, Tools.fio(serve.uri(), options.toArray(String[]::new)));
    }

    /** Waits until every job has changed its part of the disk since the last call. */
    void awaitProgress(Path disk) throws InterruptedException {
      Eventually.isTrue("every job writes", () -> !isRunning() || haveAllChanged(read(disk)));
      seen = read(disk);
    }

    private boolean haveAllChanged(byte[] now) {
      for (int from = 0; from < SIZE; from += JOB_BYTES) {
        if (Arrays.equals(now, from, from + JOB_BYTES, seen, from, from + JOB_BYTES)) {
          return false;
        }
      }
      return true;
    }

    private static byte[] read(Path disk) {
      try {
        return Files.readAllBytes(disk);
      } catch (IOException failure) {
        throw new UncheckedIOException(failure);
      }
    }

    boolean isRunning() {
      return process.isAlive();
    }

    int awaitEnd() throws InterruptedException {
      assertThat(process.waitFor(2, TimeUnit.MINUTES)).as("fio ends").isTrue();
      return process.exitValue();
    }

    String said() throws IOException {
      return Files.readString(said) + Files.readString(Path.of(said + ".err"));
    }
  }
}
