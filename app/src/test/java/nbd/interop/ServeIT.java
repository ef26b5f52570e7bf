package nbd.interop;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import nbd.testing.Bytes;
import nbd.testing.RawClient;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The command serve as users start it: its options, its output, its end. */
@Timeout(300)
final class ServeIT {
  private static final int SIZE = 1 << 20;

  @TempDir private Path directory;
  private Path disk;
  private String socket;

  @BeforeEach
  void create() throws IOException {
    disk = Files.write(directory.resolve("disk.img"), new byte[SIZE]);
    socket = directory.resolve("socket").toString();
  }

  @Test
  void theReadyLineIsAllThatIsSaid() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-p", "0", disk.toString())) {
      assertThat(serve.out()).matches("nbd-multiconn: ready nbd://127\\.0\\.0\\.1:\\d+/\n");
      try (RawClient client = serve.client()) {
        client.write(0, (byte) 1).disconnect();
      }
      serve.stopQuietly();
    }
  }

  @ParameterizedTest
  @CsvSource({
    "127.0.0.2,nbd://127.0.0.2:",
    "0.0.0.0,nbd://127.0.0.1:",
    "localhost,nbd://127.0.0.1:"
  })
  void theAddressIsChosen(String address, String uri) throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-i", address, "-p", "0", "null:1M")) {
      assertThat(serve.uri()).startsWith(uri);
      serve.client().disconnect();
      serve.stopQuietly();
    }
  }

  @Test
  void whatCannotBeServedIsStatusOneAndOneLine() throws Exception {
    String missing = directory.resolve("no-such.img").toString();
    assertThat(ServeProcess.refusal("-p", "0", missing)).contains(missing, "does not exist");
    assertThat(ServeProcess.refusal("-p", "0", directory.toString())).contains("is a directory");
    assertThat(ServeProcess.refusal("-i", "no.such.host.invalid", "-p", "0", "null:1M"))
        .contains("no.such.host.invalid");
  }

  @Test
  void aFileThatMayNotBeReadIsStatusOne() throws Exception {
    Tools.need("setpriv");
    org.junit.jupiter.api.Assumptions.assumeTrue(
        System.getProperty("user.name").equals("root"), "needs root to become somebody else");
    assertThat(directory.toFile().setExecutable(true, false)).isTrue();
    assertThat(disk.toFile().setReadable(false, false)).isTrue();
    Tools.Result result =
        Tools.run(
            "setpriv",
            "--reuid=65534",
            "--clear-groups",
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            "-jar",
            System.getProperty("nbd.jar"),
            "serve",
            "-r",
            "-p",
            "0",
            disk.toString());
    org.junit.jupiter.api.Assumptions.assumeFalse(
        result.err().contains("Unable to access jarfile"), "the jar is where only root may look");
    assertThat(result.status()).isEqualTo(1);
    assertThat(result.err()).hasLineCount(1).contains("permission denied");
  }

  @Test
  void aPortThatIsTakenIsStatusOne() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-p", "0", "null:1M")) {
      int port = ((java.net.InetSocketAddress) serve.address()).getPort();
      assertThat(ServeProcess.refusal("-p", "" + port, "null:1M")).contains("" + port);
      serve.stopQuietly();
    }
  }

  @Test
  void aServerThatEndsLeavesANewerOnesSocket() throws Exception {
    try (ServeProcess older = ServeProcess.ready("-U", socket, "null:1M")) {
      Files.delete(Path.of(socket));
      try (ServeProcess newer = ServeProcess.ready("-U", socket, "null:1M")) {
        older.stopQuietly();
        newer.client().disconnect();
        newer.stopQuietly();
      }
    }
    assertThat(Path.of(socket)).doesNotExist();
  }

  @Test
  void severalNamesAreTheSameContentAndNoOtherIsServed() throws Exception {
    try (ServeProcess serve =
        ServeProcess.ready("-U", socket, "-e", "one", "-e", "", "-D", "text", "memory:1M")) {
      assertThat(serve.uri()).contains(":///one?");
      try (RawClient one = serve.client("one");
          RawClient empty = serve.client();
          RawClient other = RawClient.connect(serve.address())) {
        one.write(7, (byte) 8).flush();
        assertThat(empty.read(7, 1)).containsExactly(8);
        other.hello(3).option(RawClient.GO, RawClient.infoData("two"));
        other.expectError(RawClient.GO, RawClient.ERR_UNKNOWN);
        other.option(RawClient.OPT_INFO, RawClient.infoData("one", 2));
        assertThat(RawClient.text(other.expectInfos(RawClient.OPT_INFO).get(1))).endsWith("text");
      }
      serve.stop();
      assertThat(serve.err()).hasLineCount(1).contains("there is no export \"two\"");
    }
  }

  @Test
  void aReadOnlyFileMayBeServedReadOnly() throws Exception {
    assertThat(disk.toFile().setWritable(false, false)).isTrue();
    try (ServeProcess serve = ServeProcess.ready("-U", socket, "-r", disk.toString());
        RawClient client = serve.client()) {
      client.call(RawClient.EPERM, 0, RawClient.WRITE, 0, 1, new byte[1]).read(0, 10);
      serve.stopQuietly();
    }
  }

  @Test
  void theSecondOfOneClientWaits() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-U", socket, "--max-connections=1", "null:1M");
        RawClient first = RawClient.connect(serve.address());
        RawClient second = RawClient.connect(serve.address())) {
      assertThat(first.enter("").has(8)).as("CAN_MULTI_CONN").isFalse();
      first.disconnect();
      second.enter("");
      second.disconnect();
      serve.stopQuietly();
    }
  }

  @Test
  void aSilentClientIsDroppedAfterTheTimeout() throws Exception {
    try (ServeProcess serve =
            ServeProcess.ready("-U", socket, "--handshake-timeout=3s", "null:1M");
        RawClient silent = RawClient.connect(serve.address())) {
      silent.greeting().expectEnd();
      serve.stop();
      assertThat(serve.err()).hasLineCount(1).contains("3.0 s");
    }
  }

  @Test
  void garbageIsOneLogLine() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-p", "0", "null:1M")) {
      try (RawClient garbage = RawClient.connect(serve.address())) {
        try {
          garbage.send(Bytes.random(1, 100_000));
        } catch (IOException theServerHasReadEnough) {
          // The greeting was sent before.
        }
        garbage.greeting().expectEnd();
      }
      serve.stop();
      assertThat(serve.err())
          .hasLineCount(1)
          .contains(" nbd-multiconn: WARN  connection 1 from 127.0.0.1:")
          .contains("client flags");
    }
  }

  @Test
  void verboseLogsWhatHappens() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-U", socket, "-v", "null:1M")) {
      try (RawClient client = serve.client()) {
        client.call(RawClient.EINVAL, 0, RawClient.READ, 1 << 20, 1).disconnect();
      }
      serve.stop();
      assertThat(serve.err())
          .contains("accepted", "serves \"\"", "READ of 1 bytes", "EINVAL", "ended");
    }
  }

  @Test
  void aFileTruncatedWhileServedIsAnErrorAndTheRestIsServed() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-U", socket, disk.toString());
        RawClient client = serve.client()) {
      client.write(100, Bytes.random(2, 100)).flush();
      try (RandomAccessFile file = new RandomAccessFile(disk.toFile(), "rw")) {
        file.setLength(4096);
      }
      for (int length : new int[] {10, 65_536, 300_000}) {
        client.call(RawClient.EIO, 0, RawClient.READ, 4000, length - 10 < 96 ? 200 : length);
      }
      assertThat(client.read(100, 100)).isEqualTo(Bytes.random(2, 100));
      client.disconnect();
      serve.stop();
      assertThat(serve.err()).contains("truncated to 4096 bytes").doesNotContain("\tat ");
    }
  }

  @Test
  void thePidFileIsThereWhileItServes() throws Exception {
    Path pid = directory.resolve("pid");
    try (ServeProcess serve =
        ServeProcess.ready("-U", socket, "--pid-file", pid.toString(), "null:1M")) {
      assertThat(pid).hasContent(serve.pid() + "\n");
      serve.stopQuietly();
    }
    assertThat(pid).doesNotExist();
    assertThat(ServeProcess.refusal("-U", socket, "--pid-file", directory + "/no/pid", "null:1M"))
        .contains("/no/pid");
    assertThat(Path.of(socket)).doesNotExist();
  }

  @Test
  void theStatisticsAreExact() throws Exception {
    Tools.need("nbdsh");
    Path stats = directory.resolve("stats.json");
    try (ServeProcess serve =
        ServeProcess.ready("-U", socket, "--stats", stats.toString(), disk.toString())) {
      Tools.run(
              "nbdsh",
              "-u",
              serve.uri(),
              "-c",
              """
              h.pwrite(b"x" * 1000, 0)
              h.pwrite(b"x" * 50, 5000, nbd.CMD_FLAG_FUA)
              h.pread(300, 0)
              h.pread(100, 0)
              h.flush()
              h.trim(512, 0)
              h.zero(512, 0, nbd.CMD_FLAG_FUA)
              """)
          .ok();
      serve.stopQuietly();
    }
    // A FUA is passed on as such; what the trim left is flushed when the connection ends.
    assertThat(Files.readString(stats, UTF_8))
        .isEqualTo(
            "{\"client\":{\"read\":2,\"write\":2,\"flush\":1,\"fua\":2,\"trim\":1,\"zero\":1,"
                + "\"cache\":0,\"extents\":0,\"read_bytes\":400,\"write_bytes\":1050,"
                + "\"error\":0,\"open\":1},"
                + "\"backend\":{\"read\":2,\"write\":2,\"flush\":2,\"fua\":2,\"trim\":1,\"zero\":1,"
                + "\"cache\":0,\"extents\":0,\"read_bytes\":400,\"write_bytes\":1050,"
                + "\"error\":0,\"open\":1},\"flush_amplification\":2.000}\n");
  }

  @ParameterizedTest
  @CsvSource({"TERM", "INT"})
  void aSignalEndsItWithStatusZeroAndClientsSeeTheEnd(String signal) throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-U", socket, disk.toString());
        RawClient client = serve.client();
        RawClient silent = RawClient.connect(serve.address())) {
      silent.greeting();
      client.write(3, (byte) 4);
      serve.signal(signal);
      client.expectEnd();
      silent.expectEnd();
      assertThat(serve.awaitEnd()).isZero();
      assertThat(serve.err()).isEmpty();
      assertThat(Path.of(socket)).doesNotExist();
      assertThatThrownBy(() -> RawClient.connect(serve.address())).isInstanceOf(IOException.class);
      assertThat(Files.readAllBytes(disk)[3]).isEqualTo((byte) 4);
    }
  }
}
