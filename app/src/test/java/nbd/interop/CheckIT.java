package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The command check against our own server. */
@Timeout(300)
final class CheckIT {
  private static final String JAVA =
      Path.of(System.getProperty("java.home"), "bin", "java").toString();
  private static final String JAR = System.getProperty("nbd.jar");
  private static final String[] STALE = {"--connection-cache", "--multi-conn-mode=unsafe"};

  @TempDir private Path directory;

  private static Tools.Result check(String... arguments) throws Exception {
    return ServeProcess.command("check", arguments);
  }

  @Test
  void aServerThatKeepsItsPromiseIsStatusZeroAndOnlyItsRegionChanges() throws Exception {
    int size = 4 << 20;
    int begin = 1 << 20;
    int end = 2 << 20;
    byte[] content = Bytes.random(15, size);
    Path disk = Files.write(directory.resolve("disk.img"), content);
    try (ServeProcess serve = ServeProcess.on(directory, disk.toString())) {
      Tools.Result said = check("--overwrite", "--duration=3s", "--region=1M:1M", serve.uri());
      assertThat(said.status()).as(said.out() + said.err()).isZero();
      assertThat(said.err()).isEmpty();
      assertThat(said.out())
          .startsWith("Overwriting 1,048,576 bytes at 1,048,576 of " + serve.uri())
          .contains("flush consistent: yes", "coherent: yes", "durable: not tested");
    }
    byte[] after = Files.readAllBytes(disk);
    assertThat(Arrays.mismatch(after, 0, begin, content, 0, begin)).isEqualTo(-1);
    assertThat(Arrays.mismatch(after, end, size, content, end, size)).isEqualTo(-1);
    assertThat(Arrays.mismatch(after, begin, end, content, begin, end)).isNotEqualTo(-1);
  }

  @Test
  void aBrokenPromiseIsStatusOneWithItsSteps() throws Exception {
    Path saved = directory.resolve("history");
    try (ServeProcess serve = ServeProcess.on(directory, "memory:4M", STALE)) {
      Tools.Result said = check("--overwrite", "--save=" + saved, serve.uri());
      assertThat(said.status()).as(said.out() + said.err()).isEqualTo(1);
      assertThat(said.out())
          .contains("Smallest history found (stale read", "  1. connection 1: write 512 bytes at ")
          .contains("flush consistent: no");
      Tools.Result json = check("--overwrite", "--json", serve.uri());
      assertThat(json.status()).isEqualTo(1);
      assertThat(json.out())
          .startsWith("{\n  \"uri\": ")
          .contains("\"flush_consistent\": false", "\"kind\": \"stale read\"", "\"kept\": false");
    }
    Tools.Result judged = check("--history=" + saved);
    assertThat(judged.status()).as(judged.err()).isEqualTo(1);
    assertThat(judged.out()).contains("flush consistent: no");
  }

  @Test
  void oneConnectionTellsNothingOfSeveral() throws Exception {
    try (ServeProcess serve = ServeProcess.on(directory, "memory:4M")) {
      Tools.Result said = check("--overwrite", "--duration=3s", "--connections=1", serve.uri());
      assertThat(said.status()).as(said.out() + said.err()).isZero();
      assertThat(said.out())
          .contains(
              ": 1 connection, ",
              "one connection by itself: kept",
              "flush consistent: not tested",
              "coherent: not tested");
    }
  }

  @Test
  void aReadOnlyExportIsRefused() throws Exception {
    try (ServeProcess serve = ServeProcess.on(directory, "memory:4M", "--read-only")) {
      Tools.Result said = check("--overwrite", serve.uri());
      assertThat(said.status()).isEqualTo(2);
      assertThat(said.out()).isEmpty();
      assertThat(said.err()).hasLineCount(1).contains(serve.uri(), "read-only");
    }
  }

  @Test
  void aServerThatCannotBeReachedIsStatusTwo() throws Exception {
    Tools.Result said = check("--overwrite", "nbd+unix:///?socket=" + directory.resolve("none"));
    assertThat(said.status()).isEqualTo(2);
    assertThat(said.err()).hasLineCount(1).contains("none");
  }

  @Test
  void aHistoryThatCannotBeSavedIsStatusTwoAtOnce() throws Exception {
    try (ServeProcess serve = ServeProcess.on(directory, "memory:4M")) {
      Tools.Result full = check("--overwrite", "--duration=1h", "--save=/dev/full", serve.uri());
      assertThat(full.status()).as(full.out()).isEqualTo(2);
      assertThat(full.err())
          .isEqualTo("nbd-multiconn: --save: /dev/full: No space left on device\n");
      Path missing = directory.resolve("none").resolve("history");
      Tools.Result none = check("--overwrite", "--save=" + missing, serve.uri());
      assertThat(none.status()).as(none.out()).isEqualTo(2);
      assertThat(none.err()).hasLineCount(1).contains(missing + ": no such file or directory");
    }
  }

  @Test
  void aMissingOrWrongHistoryIsStatusTwo() throws Exception {
    Path wrong = Files.writeString(directory.resolve("wrong"), "{\"sectors\":8}\n");
    assertThat(check("--history=" + wrong).err()).contains(wrong + ":1: ");
    isRefused(directory.resolve("none"), "no such file");
    isRefused(directory, "Is a directory");
    isRefused(Files.writeString(directory.resolve("empty"), ""), "is empty");
    isRefused(Files.write(directory.resolve("binary"), new byte[] {'{', -1}), "is not text");
    int most = Integer.MAX_VALUE;
    String start = "{\"sectors\":%d,\"contents\":\"zero\"}%n".formatted(most);
    String write =
        "{\"begin\":1,\"connection\":0,\"kind\":\"zero\",\"sector\":0,\"sectors\":%d}%n"
            .formatted(most);
    Path endless = Files.writeString(directory.resolve("endless"), start + write);
    Tools.Result tooLong = Tools.run(JAVA, "-Xmx64m", "-jar", JAR, "check", "--history=" + endless);
    assertThat(tooLong.status()).isEqualTo(2);
    assertThat(tooLong.err()).hasLineCount(1).contains("out of memory");
  }

  private static void isRefused(Path history, String reason) throws Exception {
    Tools.Result said = check("--history=" + history);
    assertThat(said.status()).isEqualTo(2);
    assertThat(said.err()).hasLineCount(1).contains(history + ": " + reason);
  }

  private Tools.Result ended(Path whenWritten, String... arguments) throws Exception {
    Path out = directory.resolve("out");
    List<String> command = new ArrayList<>();
    command.addAll(List.of(JAVA, "-jar", JAR, "check", "--overwrite"));
    command.addAll(List.of(arguments));
    Process process = Tools.start(out, command.toArray(String[]::new));
    Eventually.isTrue(
        "it has begun", () -> !process.isAlive() || whenWritten.toFile().length() > 0);
    process.destroy();
    return Tools.result(process, out);
  }

  private static void isVerdictSoFar(Tools.Result said) {
    assertThat(said.status()).as(said.out() + said.err()).isZero();
    assertThat(said.out())
        .contains(" requests, ", "flush consistent: ", "The check was ended early; ");
  }

  @Test
  void aSignalGivesTheVerdictSoFar() throws Exception {
    try (ServeProcess serve = ServeProcess.on(directory, "memory:4M")) {
      isVerdictSoFar(ended(directory.resolve("out"), "--duration=1h", serve.uri()));
    }
  }

  @Test
  void aSignalGivesTheVerdictSoFarDuringTheRestartCommand() throws Exception {
    Path begun = directory.resolve("begun");
    Path saved = directory.resolve("history");
    try (ServeProcess serve = ServeProcess.on(directory, "memory:4M")) {
      isVerdictSoFar(
          ended(
              begun,
              "--duration=1h",
              "--save=" + saved,
              "--restart-command=echo $$ > %s; exec sleep 1000".formatted(begun),
              serve.uri()));
    } finally {
      long sleeping = Long.parseLong(Files.readString(begun).strip());
      ProcessHandle.of(sleeping).ifPresent(ProcessHandle::destroy);
    }
    assertThat(check("--history=" + saved).status()).isZero();
  }
}
