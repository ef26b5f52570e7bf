package nbd.cli;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Wrong usage: status 2, and one line that says what is wrong. */
@Timeout(30)
final class UsageTest {
  /** The options of later issues are among them: they are not taken and then do nothing. */
  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "fly null:1M",
        "serve",
        "serve --no-such-option null:1M",
        "serve -p 65536 null:1M",
        "serve -p -1 null:1M",
        "serve -p x null:1M",
        "serve memory:lots",
        "serve memory:17P",
        "serve null:1M null:2M",
        "serve --max-connections=-1 null:1M",
        "serve --max-connections=many null:1M",
        "serve --handshake-timeout=soon null:1M",
        "serve --handshake-timeout=0 null:1M",
        "serve --memory=lots null:1M",
        "serve --memory=0 null:1M",
        "serve --memory=32M null:1M",
        "serve --memory=8191P null:1M",
        "serve --memory null:1M",
        "serve --export-name",
        "serve --multi-conn-mode=safe null:1M",
        "serve --force-share null:1M",
        "serve --fadvise=random memory:1M",
        "serve --fadvise=backwards README.md",
        "serve --cache-advice=normal memory:1M",
        "serve --cache-advice=all README.md",
        "serve --export-name=x dir:/",
        "serve dir:",
        "serve --dynamic-export null:1M",
        "serve --cache=always null:1M",
        "serve --cache-size=1M null:1M",
        "serve --cache=none --cache-block-size=4K null:1M",
        "serve --cache=writeback --cache-size=lots null:1M",
        "serve --cache=writeback --cache-size=64K null:1M",
        "serve --cache=writeback --cache-block-size=5000 null:1M",
        "serve --cache=writeback --cache-block-size=4G null:1M",
        "serve --cache=writeback --thread-model=serialize-connections dir:/",
        "serve --fua=always null:1M",
        "serve --fua=discard --multi-conn-mode=emulate null:1M",
        "serve --tls=on null:1M",
        "serve --tls=require null:1M",
        "serve --tls=maybe --tls-certificates=. null:1M",
        "serve --tls=off --tls-certificates=. null:1M",
        "serve --tls-verify-peer null:1M",
        "serve --tls-certificates",
        "serve -U x -p 0 null:1M",
        "serve -U x -i localhost null:1M",
        "serve -U - -p 10809 null:1M",
        "serve --metrics=1234 null:1M",
        "check nbd://localhost",
        "info",
        "info disk.img",
        "info nbd://localhost:x/",
        "info nbd+unix:///x",
        "info --list --map nbd://localhost",
        "info --size nbd://localhost",
        "info nbd://a nbd://b",
      })
  void wrongUsageIsStatusTwoAndOneLine(String line) {
    String[] arguments = line.isEmpty() ? new String[0] : line.split(" ");
    Said said = execute(arguments);
    assertThat(said.status).as(said.err).isEqualTo(2);
    assertThat(said.out).isEmpty();
    assertThat(said.err).hasLineCount(1).startsWith("nbd-multiconn: ").contains("--help");
  }

  @Test
  void tooLittleMemoryIsSaidToBeAndHowMuchIsEnough() {
    assertThat(execute("serve", "--memory=34603007", "null:1M").err)
        .contains("--memory", "34603007", "33M");
  }

  @Test
  void moreMemoryThanTheJvmGivesOutIsSaidToBeAndWhatToDo() {
    assertThat(execute("serve", "--memory=1P", "null:1M").err)
        .contains("--memory", "-XX:MaxDirectMemorySize");
  }

  @Test
  void aCacheForWhichTheJvmHasNoRoomIsSaidToBeAndWhatToDo() {
    assertThat(execute("serve", "--cache=writeback", "--cache-size=1T", "null:1M").err)
        .contains("--cache-size", "1048576M", "-XX:MaxDirectMemorySize");
  }

  @Test
  void helpAndVersionAreNoErrors() {
    for (String line : new String[] {"--help", "--version", "help serve", "info --help", "help"}) {
      Said said = execute(line.split(" "));
      assertThat(said.status).as(line).isZero();
      assertThat(said.out).as(line).isNotBlank();
      assertThat(said.err).as(line).isEmpty();
    }
  }

  private record Said(int status, String out, String err) {}

  private static Said execute(String... arguments) {
    PrintStream out = System.out;
    PrintStream err = System.err;
    ByteArrayOutputStream newOut = new ByteArrayOutputStream();
    ByteArrayOutputStream newErr = new ByteArrayOutputStream();
    System.setOut(new PrintStream(newOut, true, UTF_8));
    System.setErr(new PrintStream(newErr, true, UTF_8));
    try {
      int status = Main.commandLine().execute(arguments);
      return new Said(status, newOut.toString(UTF_8), newErr.toString(UTF_8));
    } finally {
      System.setOut(out);
      System.setErr(err);
    }
  }
}
