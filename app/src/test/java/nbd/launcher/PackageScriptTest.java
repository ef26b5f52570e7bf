package nbd.launcher;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

/** The script of the Debian package chooses Java and its options as the launcher does. */
final class PackageScriptTest {
  /** Without the ends of the lines that go on. */
  private final String script;

  PackageScriptTest() throws IOException {
    script = Files.readString(Path.of("src/deb/nbd-multiconn")).replace("\\\n", "");
  }

  @Test
  void theJavaIsOfTheSameVersionAndSoughtInTheSamePlaces() {
    assertThat(script)
        .contains("\nneeded=" + Launcher.NEEDED_JAVA + "\n")
        .contains("exit " + Launcher.NO_JAVA + "\n")
        .contains(
            "\nroots=${NBD_JAVA_ROOTS-\""
                + String.join(":", JavaFinder.USUAL_PLACES).replace("~", "$HOME")
                + "\"}\n");
  }

  @Test
  void theHeapIsAsSmallUnlessTheSameVariablesMayChooseACollector() {
    String anySet =
        Arrays.stream(Launcher.OPTION_VARIABLES)
            .map(variable -> "${" + variable + "+set}")
            .collect(Collectors.joining());
    assertThat(script)
        .contains(
            "if [ -z \""
                + anySet
                + "\" ]; then\n  set -- "
                + String.join(" ", Launcher.SMALL_HEAP)
                + " \"$@\"\n");
  }

  @Test
  void theLocaleIsChangedToTheSame() {
    assertThat(script)
        .contains("-D" + Arguments.LC_ALL_PROPERTY + "=$LC_ALL")
        .contains("export LC_ALL=" + Arguments.LOCALE + "\n");
  }
}
