package nbd.interop;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import nbd.testing.Eventually;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** serve --run: the command's socket, its status, and its end with the server. */
@Timeout(300)
final class RunIT {
  @TempDir private Path directory;
  private Path temporary;
  private Path mark;

  @BeforeEach
  void create() throws IOException {
    temporary = Files.createDirectory(directory.resolve("tmp"));
    mark = directory.resolve("mark");
  }

  /**
   * Makes a command whose private directories are in {@code temporary}, and whose shell has $mark.
   */
  private ProcessBuilder builder(String command, String... options) {
    List<String> words =
        Stream.of(Stream.of("--run", command), Stream.of(options), Stream.of("memory:5M"))
            .flatMap(each -> each)
            .toList();
    ProcessBuilder builder = ServeProcess.builder(words.toArray(String[]::new));
    builder.environment().put("TMPDIR", temporary.toString());
    builder.environment().put("mark", mark.toString());
    return builder;
  }

  private void awaitMark() throws InterruptedException {
    Eventually.isTrue("the command runs", () -> Files.exists(mark));
  }

  @Test
  void theCommandThatRunsGetsTheUriAndGivesTheStatus() throws Exception {
    Tools.need("nbdinfo");
    Tools.Result result =
        ServeProcess.run(
            builder("nbdinfo --size \"$uri\"; test -S \"$unixsocket\" || exit 9; exit 7"));
    assertThat(result.status()).isEqualTo(7);
    assertThat(result.out()).isEqualTo("5242880\n");
    assertThat(ServeProcess.run(builder("true")).status()).isZero();
    assertThat(temporary).isEmptyDirectory();
  }

  @ParameterizedTest
  @CsvSource({"TERM, 143", "INT, 130"})
  void aSignalEndsTheCommandAndIsTheStatus(String signal, int status) throws Exception {
    try (ServeProcess serve =
        ServeProcess.withCommand(builder("echo begun > \"$mark\"; exec sleep 1000"))) {
      awaitMark();
      serve.signal(signal);
      assertThat(serve.awaitEnd()).isEqualTo(status);
    }
    assertThat(temporary).as("what is left").isEmptyDirectory();
  }

  @Test
  void whatTheCommandHasStartedEndsWithIt() throws Exception {
    String command = "sleep 1000 & echo $! > \"$mark.new\"; mv \"$mark.new\" \"$mark\"; wait";
    try (ServeProcess serve = ServeProcess.withCommand(builder("sh -c '" + command + "'; true"))) {
      awaitMark();
      long sleeping = Long.parseLong(Files.readString(mark, UTF_8).strip());
      assertThat(runs(sleeping)).isTrue();
      serve.signal("TERM");
      serve.awaitEnd();
      Eventually.isTrue("it has ended", () -> !runs(sleeping));
    }
  }

  /** Says whether a process runs a program; a zombie has none. */
  private static boolean runs(long pid) {
    return ProcessHandle.of(pid).flatMap(process -> process.info().command()).isPresent();
  }

  @Test
  void aCommandMayUseTheServerWhileItCleansUp() throws Exception {
    Tools.need("nbdinfo");
    Path said = directory.resolve("said");
    String command =
        "trap 'nbdinfo --size \"$uri\" > \"$said\"; exit 3' TERM; echo begun > \"$mark\";"
            + " while :; do sleep 0.1; done";
    ProcessBuilder builder = builder(command);
    builder.environment().put("said", said.toString());
    try (ServeProcess serve = ServeProcess.withCommand(builder)) {
      awaitMark();
      serve.signal("TERM");
      assertThat(serve.awaitEnd()).isEqualTo(143);
    }
    assertThat(said).hasContent("5242880\n");
    assertThat(temporary).isEmptyDirectory();
  }

  @Test
  void aCommandMayUseASocketOfTheUsersChoice() throws Exception {
    Path socket = directory.resolve("chosen");
    Tools.Result result =
        ServeProcess.run(builder("echo $uri $unixsocket", "-U", socket.toString()));
    assertThat(result.out()).isEqualTo("nbd+unix:///?socket=%s %s\n".formatted(socket, socket));
    assertThat(socket).doesNotExist();
  }

  @Test
  void aCommandMayUseTcp() throws Exception {
    Tools.need("nbdinfo");
    Tools.Result result =
        ServeProcess.run(
            builder(
                "echo \"$uri,$unixsocket\"; nbdinfo --size $uri", "-p", "0", "-i", "127.0.0.2"));
    assertThat(result.out()).matches("nbd://127\\.0\\.0\\.2:\\d+/,\n5242880\n");
  }

  @Test
  void aPrivateSocketIsMadeWithoutACommandToo() throws Exception {
    ProcessBuilder builder = ServeProcess.builder("-U", "-", "null:1M");
    builder.directory(directory.toFile());
    builder.environment().put("TMPDIR", temporary.toString());
    try (ServeProcess serve = ServeProcess.ready(builder)) {
      Optional<Path> made;
      try (Stream<Path> files = Files.list(temporary)) {
        made = files.findFirst();
      }
      assertThat(made).isPresent();
      assertThat(serve.uri()).isEqualTo("nbd+unix:///?socket=" + made.get() + "/socket");
      assertThat(Files.getPosixFilePermissions(made.get())).hasSize(3);
      serve.stopQuietly();
    }
    assertThat(temporary).isEmptyDirectory();
    assertThat(directory.resolve("-")).doesNotExist();
  }

  @Test
  void aDirectoryForTheSocketThatCannotBeMadeIsSaidSo() throws Exception {
    ProcessBuilder builder = builder("true");
    builder.environment().put("TMPDIR", directory + "/missing");
    assertThat(ServeProcess.refusal(builder)).contains("/missing", "TMPDIR");
  }
}
