package nbd.cli;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import nbd.filter.FuaMode;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import picocli.CommandLine.Model.OptionSpec;

/** The answers of bash to the TAB key at the end of a line; bash runs the script. */
@Timeout(300)
final class CompletionTest {
  @TempDir private Path directory;

  @BeforeEach
  void makeFiles() throws IOException {
    Files.createDirectory(directory.resolve("images"));
    Files.createFile(directory.resolve("images/disk"));
    Files.createFile(directory.resolve("image file"));
    Files.writeString(directory.resolve("script"), Completion.script(Main.commandLine()));
  }

  /**
   * Returns the words that bash offers in place of the last one; for bash it also ends at = and :.
   */
  private List<String> complete(String line) throws Exception {
    String harness =
        """
        . ./script
        COMP_LINE=$1 COMP_POINT=${#1}
        _nbd_multiconn
        (( ${#COMPREPLY[@]} == 0 )) || printf '%s\\n' "${COMPREPLY[@]}"
        """;
    Process bash =
        new ProcessBuilder("bash", "-c", harness, "bash", line)
            .directory(directory.toFile())
            .redirectInput(new File("/dev/null"))
            .redirectError(directory.resolve("errors").toFile())
            .start();
    List<String> answers =
        List.of(new String(bash.getInputStream().readAllBytes(), UTF_8).split("\n"));
    assertThat(bash.waitFor()).isZero();
    assertThat(directory.resolve("errors")).isEmptyFile();
    return answers.equals(List.of("")) ? List.of() : answers;
  }

  @ParameterizedTest
  @CsvSource({
    "'', serve info check control help --help --version",
    "se, serve",
    "help s, serve",
    "serve --cache=, none writeback writethrough unsafe",
    "serve --cache=w, writeback writethrough",
    "serve --cache w, writeback writethrough",
    "serve --fua=, native none emulate force pass discard",
    "serve --multi-conn-mode=, auto emulate disable plugin unsafe",
    "serve --multi-conn-exportname=, true false",
    "serve --tls=, off on require",
    "serve --multi-conn-m, --multi-conn-mode=",
    "serve --read-o, --read-only",
    "serve --pid-file=im, 'images|image file'",
    "serve --tls-certificates im, images",
    "serve --memory=, ''",
    "serve -e x -r mem, memory:",
    "serve image, 'images|image file'",
    "serve --multi-conn-exportname mem, memory:",
    "serve file:im, 'images|image file'",
    "serve file:images/, images/disk",
    "serve dir:, images",
    "serve nbd, nbd:// nbds:// nbd+unix:/// nbds+unix:///",
    "serve nbd+u, nbd+unix:///",
    "serve nbd+unix:///x?socket=im, 'images|image file'",
    "info nbds, nbds:// nbds+unix:///",
    "info --can=m, multi-conn",
    "info --is r, read-only rotational",
    "info --ma, --map --map=",
    "info --map nbds, nbds:// nbds+unix:///",
    "serve --config=im, 'images|image file'",
    "serve --control=im, 'images|image file'",
    "control im, 'images|image file'",
    "control --json im, 'images|image file'",
    "control x r, resume remove reload",
    "control x --j, --json",
  })
  void bashOffers(String line, String answers) throws Exception {
    String separator = answers.contains("|") ? "\\|" : " ";
    String[] expected =
        Stream.of(answers.split(separator)).filter(word -> !word.isEmpty()).toArray(String[]::new);
    List<String> offered = complete("nbd-multiconn " + line);
    if (line.startsWith("serve --fua")) {
      assertThat(offered).hasSize(FuaMode.values().length).isSubsetOf(expected);
    } else {
      assertThat(offered).containsExactlyInAnyOrder(expected);
    }
  }

  @Test
  void everyOptionIsOfferedAndEveryValueThatHasAName() throws Exception {
    for (String name : List.of("serve", "info", "control")) {
      String start = "nbd-multiconn " + name + " ";
      List<String> options = complete(start + "-");
      for (OptionSpec option :
          Main.commandLine().getSubcommands().get(name).getCommandSpec().options()) {
        String word = option.longestName() + (option.arity().max() == 0 ? "" : "=");
        assertThat(options).contains(word);
        if (option.completionCandidates() != null) {
          assertThat(complete(start + word))
              .containsExactlyElementsOf(option.completionCandidates());
        }
      }
    }
  }

  @Test
  void anArgumentIsAFileOrAKindOfBackend() throws Exception {
    assertThat(complete("nbd-multiconn serve "))
        .contains("images", "image file", "file:", "dir:", "memory:", "null:", "nbd+unix:///");
  }
}
