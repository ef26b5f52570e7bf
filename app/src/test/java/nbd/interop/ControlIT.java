package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import nbd.testing.Eventually;
import nbd.testing.RawClient;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The command control, and what it does to a server and its clients. */
@Timeout(300)
final class ControlIT {
  @TempDir private Path directory;
  private Path control;

  @BeforeEach
  void create() {
    control = directory.resolve("control");
  }

  private Tools.Result control(String... request) throws Exception {
    String[] words = new String[request.length + 1];
    words[0] = control.toString();
    System.arraycopy(request, 0, words, 1, request.length);
    return ServeProcess.command("control", words);
  }

  private String refusal(String... request) throws Exception {
    Tools.Result result = control(request);
    assertThat(result.status()).as(result.err()).isEqualTo(1);
    assertThat(result.out()).isEmpty();
    assertThat(result.err()).hasLineCount(1).startsWith("nbd-multiconn: " + control + ": ");
    return result.err();
  }

  @Test
  void aServerTellsWhatItServesToWhomAndStops() throws Exception {
    try (ServeProcess serve =
        ServeProcess.on(
            directory,
            "memory:1M",
            "--control=" + control,
            "--handshake-timeout=10m",
            "-e",
            "disk",
            "-e",
            "two words")) {
      assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(control)))
          .isEqualTo("rw-------");
      try (RawClient client = serve.client("disk");
          RawClient silent = RawClient.connect(serve.address())) {
        assertThat(control("exports").ok().out())
            .matches(
                """
                EXPORT +STATE +CONNECTIONS +SIZE +ACCESS +MODE +BACKEND
                disk,"two words" +serving +1 +1M +writable +auto +memory
                """);
        assertThat(control("exports", "--json").ok().out())
            .contains("{\"names\": [\"disk\", \"two words\"], \"state\": \"serving\",")
            .contains("\"connections\": 1, \"size\": 1048576, \"read_only\": false");
        client.write(0, (byte) 1).read(0, 512);
        String self = "pid " + ProcessHandle.current().pid() + ", uid \\d+";
        String time = "\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d[+-]\\d\\d:\\d\\d";
        silent.greeting();
        assertThat(control("connections").ok().out())
            .matches(
                """
                NUMBER +STATE +EXPORT +REQUESTS +BYTES +SINCE +CLIENT
                1 +serving +disk +2 +513 +@ +%s
                2 +handshake +- +0 +0 +@ +%s
                """
                    .formatted(self, self)
                    .replace("@", time));
        assertThat(control("--json", "connections").ok().out())
            .contains(
                "{\"number\": 1, \"state\": \"serving\", \"export\": \"disk\", \"since\": \"2");
        assertThat(control("stop").ok().out()).isEmpty();
        client.expectEnd();
      }
      assertThat(serve.awaitEnd()).isZero();
      assertThat(serve.log()).contains("stopping on a request, connections: 2");
    }
    assertThat(control).doesNotExist();
    assertThat(refusal("exports")).contains("No such file");
  }

  @Test
  void aDrainedExportRefusesClientsUntilItIsResumed() throws Exception {
    try (ServeProcess serve = ServeProcess.on(directory, "memory:1M", "--control=" + control)) {
      try (RawClient client = serve.client()) {
        client.write(0, (byte) 7);
        assertThat(control("drain", "").ok().out()).isEmpty();
        client.expectEnd();
      }
      assertThat(control("exports").ok().out()).containsPattern("\"\" +drained +0 ");
      Tools.Result refused = Tools.run("nbdinfo", "--size", serve.uri());
      assertThat(refused.status()).isEqualTo(1);
      assertThat(refused.err()).contains("shut");
      assertThat(control("resume", "").ok().out()).isEmpty();
      Tools.qemuIo(serve.uri(), "read -P 7 0 1");
      assertThat(refusal("drain", "other")).contains("there is no export \"other\"");
      assertThat(control("remove", "").ok().out()).isEmpty();
      assertThat(control("exports").ok().out()).hasLineCount(1);
      assertThat(Tools.run("nbdinfo", "--list", serve.uri()).ok().out()).doesNotContain("export=");
      assertThat(refusal("remove", "")).contains("there is no export \"\"");
      serve.stop();
    }
  }

  @Test
  void theSocketOfAKilledServerIsReplacedAndOthersAreNot() throws Exception {
    try (ServeProcess killed = ServeProcess.on(directory, "memory:1M", "--control=" + control)) {
      killed.signal("KILL");
      killed.awaitEnd();
    }
    assertThat(refusal("exports")).contains("refused");
    try (ServeProcess serve = ServeProcess.on(directory, "memory:1M", "--control=" + control)) {
      assertThat(
              ServeProcess.refusal(
                  "-U", directory.resolve("other").toString(), "--control=" + control, "null:1M"))
          .contains(control + ": another server answers");
      Path taken = Files.writeString(directory.resolve("file"), "mine");
      assertThat(
              ServeProcess.refusal(
                  "-U", directory.resolve("other").toString(), "--control=" + taken, "null:1M"))
          .contains(taken + ": it exists and is not a socket");
      assertThat(taken).hasContent("mine");
      assertThat(control("exports").ok().out()).hasLineCount(2);
      serve.signal("TERM");
      assertThat(serve.awaitEnd()).isZero();
    }
    Eventually.isTrue("the socket is removed", () -> !Files.exists(control));
  }
}
