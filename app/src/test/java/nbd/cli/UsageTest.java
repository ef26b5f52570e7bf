package nbd.cli;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import picocli.CommandLine.Model.OptionSpec;

/** Wrong usage, which is answered with status 2 and one line. */
@Timeout(300)
final class UsageTest {
  /** 4098 bytes, 2049 characters. */
  private static final String TOO_LONG = "\u00e9".repeat(2049);

  /** Among them are options that are planned: they must not be taken and ignored. */
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
        "serve --error-read=2 null:1M",
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
        "serve --unix= null:1M",
        "serve -p 0 -p 65536 null:1M",
        "serve -s -U x null:1M",
        "serve -s -p 0 null:1M",
        "serve -s -i ::1 null:1M",
        "serve --single --run=true null:1M",
        "serve --single --max-connections=2 null:1M",
        "serve --pid-file= null:1M",
        "serve --stats= null:1M",
        "serve --metrics=1234 null:1M",
        "check",
        "check nbd://localhost",
        "check --overwrite",
        "check --overwrite disk.img",
        "check --overwrite --connections=0 nbd://localhost",
        "check --overwrite --connections=1025 nbd://localhost",
        "check --overwrite --exhaustive=-1 nbd://localhost",
        "check --overwrite --exhaustive=7 nbd://localhost",
        "check --overwrite --duration=0 nbd://localhost",
        "check --overwrite --region=1M nbd://localhost",
        "check --overwrite --region=0:lots nbd://localhost",
        "check --history=x nbd://localhost",
        "check --history=x --seed=1",
        "serve --export",
        "serve --export=x",
        "serve --export=x={memory:1M",
        "serve --export=x={} null:1M",
        "serve --export=x=dir:/ null:1M",
        "serve --export=x=memory:1M --export=x=memory:1M",
        "serve --export==memory:1M null:1M",
        "serve --export=x=memory:1M --export-name=y",
        "serve --export=x=memory:1M --force-share",
        "serve --export=@TOO_LONG@=memory:1M",
        "serve --config= null:1M",
        "serve --config",
        "control",
        "control socket",
        "control socket add",
        "control socket reload x",
        "control socket destroy",
        "control socket stop now",
        "control socket drain",
        "control socket drain a b",
        "control --json socket stop",
        "serve --control= null:1M",
        "serve --control",
        "info",
        "info disk.img",
        "info nbd://localhost:x/",
        "info nbd+unix:///x",
        "info --list --map nbd://localhost",
        "info --size --map nbd://localhost",
        "info --size --list nbd://localhost",
        "info --map --list nbd://localhost",
        "serve http://localhost/disk",
        "serve ram:1G",
        "serve nbd:localhost:10809",
        "serve --description=@TOO_LONG@ null:1M",
        "serve --export-name=@TOO_LONG@ null:1M",
        "serve null:8E",
        "serve null:9223372036854775808",
        "info nbd://a nbd://b",
      })
  void wrongUsageIsStatusTwoAndOneLine(String line) {
    String[] arguments =
        line.isEmpty() ? new String[0] : line.replace("@TOO_LONG@", TOO_LONG).split(" ");
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

  @ParameterizedTest
  @CsvSource({
    "serve ram:1G, memory:1G",
    "serve zero:1G, null:1G",
    "serve nbd:localhost:10809, nbd://localhost:10809/",
    "serve nbd:localhost:10809:exportname=a, nbd://localhost:10809/a",
    "serve nbd:unix:/tmp/s, nbd+unix:///?socket=/tmp/s",
    "serve --cahe=none null:1M, --cache",
    "serve --read-olny null:1M, --read-only",
    "info --lst nbd://localhost, --list",
    "serv null:1M, serve",
    "infos nbd://localhost, info",
  })
  void whatMayHaveBeenMeantIsAskedFor(String line, String meant) {
    assertThat(execute(line.split(" ")).err).contains("did you mean " + meant + "?");
  }

  @ParameterizedTest
  @CsvSource({
    "--multi-conn-mode=safe, 'auto, emulate, disable, plugin, unsafe'",
    "--multi-conn-track-dirty=all, 'connection, fast, off'",
    "--thread-model=none, 'serialize-requests, parallel'",
    "--error-read=2, 'from 0 to 1'",
    "--port=x, '\"x\" is not a number'",
    "--error-read=0.5:EWRONG, 'EPERM, EIO'",
  })
  void aWrongValueIsAnsweredWithTheRightOnes(String option, String right) {
    assertThat(execute("serve", option, "null:1M").err)
        .contains(option.substring(0, option.indexOf('=')), right);
  }

  @Test
  void anUnknownBackendIsAnsweredWithThoseThatThereAre() {
    for (String backend : List.of("http://localhost/disk", "ssh://localhost/disk", "ram:1G")) {
      assertThat(execute("serve", backend).err)
          .contains("\"" + backend + "\"", "PATH", "dir:", "memory:", "null:", "nbd://");
    }
  }

  @Test
  void nothingIsSuggestedForWhatIsLikeNothing() {
    assertThat(execute("serve", "--frobnicate", "null:1M").err).doesNotContain("did you mean");
    assertThat(execute("frobnicate").err).doesNotContain("did you mean");
  }

  /** Otherwise the last one would win, and the first one be ignored. */
  @Test
  void anOptionThatIsGivenTwiceIsRefused() {
    for (String name : List.of("serve", "info", "check", "control")) {
      for (OptionSpec option :
          Main.commandLine().getSubcommands().get(name).getCommandSpec().options()) {
        if (option.isMultiValue() || option.usageHelp()) {
          continue;
        }
        String word = option.longestName();
        String value = option.arity().min() == 0 ? word : word + "=" + aValue(option);
        for (String again : List.of(value, value.replace(word, option.shortestName()))) {
          Said said = execute(name, value, again, "null:1M");
          assertThat(said.status).as(word).isEqualTo(Info.isQuestion(value) ? 1 : 2);
          assertThat(said.err).as(word).contains("only once", word);
        }
      }
    }
  }

  private static String aValue(OptionSpec option) {
    return option.completionCandidates() == null
        ? "1"
        : option.completionCandidates().iterator().next();
  }

  @Test
  void anArgumentThatBeginsWithAnAtSignIsNoFileOfArguments(@TempDir Path directory)
      throws IOException {
    Path file = Files.writeString(directory.resolve("words"), "--version");
    Said said = execute("info", "@" + file);
    assertThat(said.status).isEqualTo(2);
    assertThat(said.err).contains("@" + file);
  }

  @Test
  void aFileForStatisticsThatCannotBeWrittenIsSaidAtTheStart(@TempDir Path directory) {
    String file = directory.resolve("missing/stats.json").toString();
    Said said = execute("serve", "--stats=" + file, "null:1M");
    assertThat(said.status).isEqualTo(1);
    assertThat(said.err)
        .hasLineCount(1)
        .contains("--stats", file, "no such")
        .doesNotContain("java");
  }

  @Test
  void aCharacterDeviceIsNotServed() {
    for (String device : List.of("/dev/null", "/dev/zero")) {
      Said said = execute("serve", device);
      assertThat(said.status).isEqualTo(1);
      assertThat(said.err).hasLineCount(1).contains(device, "character device");
    }
  }

  /** A script would take status 2 for the answer no. */
  @Test
  void wrongUsageIsNoAnswerToAQuestion() {
    for (String line :
        new String[] {
          "info --can=fly nbd://a", "info --can trim", "info --is tls --size nbd://a"
        }) {
      assertThat(execute(line.split(" ")).status).as(line).isEqualTo(1);
    }
  }

  @Test
  void unitsAreExplainedInTheHelp() {
    assertThat(execute("serve", "--help").out)
        .contains("SIZE is", "K, M, G, T, P or E", "DURATION is", "ms, s, m or h");
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
      int status = Main.commandLine(arguments).execute(arguments);
      return new Said(status, newOut.toString(UTF_8), newErr.toString(UTF_8));
    } finally {
      System.setOut(out);
      System.setErr(err);
    }
  }
}
