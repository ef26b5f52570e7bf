package nbd.interop;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.charset.Charset;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Names with characters outside ASCII, in every locale and with every Java. A shell makes the
 * files, since the tests' own JVM may be unable to name them.
 */
@Timeout(300)
final class NamesIT {
  @TempDir private Path directory;
  private Path out;

  @BeforeEach
  void create() {
    out = directory.resolve("out.txt");
  }

  /** Returns Javas, and variables for the environment; a locale that is not installed is C. */
  private static Stream<Arguments> surroundings() {
    Path own = Path.of(System.getProperty("java.home"));
    Path mavens = Path.of(System.getProperty("nbd.maven.java.home", own.toString()));
    return Stream.of(own, mavens)
        .distinct()
        .flatMap(
            java ->
                Stream.of("LC_ALL=C", "LC_CTYPE=xx_XX.ISO-8859-1", "LC_ALL=C.UTF-8")
                    .map(locale -> Arguments.of(java, locale)));
  }

  /** Runs a script in the directory; "$@" runs the program. */
  private Tools.Result run(Path java, String locale, String script, Charset charset)
      throws IOException, InterruptedException {
    Path file = Files.write(directory.resolve("script"), script.getBytes(charset));
    List<String> command = new ArrayList<>(List.of("/bin/sh", file.toString()));
    command.add(java.resolve("bin/java").toString());
    command.addAll(List.of("-XX:TieredStopAtLevel=1", "-jar", System.getProperty("nbd.jar")));
    ProcessBuilder builder = new ProcessBuilder(command).directory(directory.toFile());
    builder.environment().keySet().removeIf(name -> name.startsWith("LC_") || name.equals("LANG"));
    String[] variable = locale.split("=", 2);
    builder.environment().put(variable[0], variable[1]);
    builder.environment().put("JAVA_HOME", System.getProperty("java.home"));
    Path err = directory.resolve("err.txt");
    int status = builder.redirectOutput(out.toFile()).redirectError(err.toFile()).start().waitFor();
    return new Tools.Result(
        status, new String(Files.readAllBytes(out), UTF_8), Files.readString(err, ISO_8859_1));
  }

  @ParameterizedTest
  @MethodSource("surroundings")
  void aCommandGetsTheNamesThatTheUserWrote(Path java, String locale) throws Exception {
    Tools.need("nbdinfo");
    String script =
        """
        set -e
        mkdir gl; touch gl/ü 'gl/??'; truncate -s 1M diskü.img; truncate -s 2M 'disk??.img'
        mkdir wü; cd wü
        "$@" serve -e exü -U sockü --pid-file=pidü --stats=statsü \\
          --run 'rm ../gl/ü; nbdinfo --size "$uri"; ls pidü; echo "$unixsocket"' ../diskü.img
        ls statsü ../gl
        """;
    Tools.Result result = run(java, locale, script, UTF_8).ok();
    assertThat(result.out())
        .isEqualTo(
            "1048576\npidü\n%s/wü/sockü\nstatsü\n\n../gl:\n??\n".formatted(directory.toRealPath()));
  }

  @ParameterizedTest
  @MethodSource("surroundings")
  void theCommandHasTheUsersLocale(Path java, String locale) throws Exception {
    String script =
        "\"$@\" serve --run 'echo \"LC_ALL=${LC_ALL-} LC_CTYPE=${LC_CTYPE-}\"' null:1M\n";
    Tools.Result result = run(java, locale, script, UTF_8).ok();
    assertThat(result.out().strip().split(" ")).contains(locale);
  }

  @ParameterizedTest
  @MethodSource("surroundings")
  void aNameThatIsNotUtf8IsRefused(Path java, String locale) throws Exception {
    String script =
        "truncate -s 1M diskü.img 'disk?.img'\n\"$@\" serve --run 'echo served' diskü.img\n";
    Tools.Result result = run(java, locale, script, ISO_8859_1);
    assertThat(result.status()).isEqualTo(2);
    assertThat(result.out()).isEmpty();
    assertThat(result.err()).hasLineCount(1).contains("argument 4", "disk\\xfc.img");
  }

  @ParameterizedTest
  @MethodSource("surroundings")
  void aDirectorysFilesAreListedUnlessTheirNamesAreNotUtf8(Path java, String locale)
      throws Exception {
    Tools.need("nbdinfo");
    String script =
        """
        mkdir images; truncate -s 1M images/ü 'images/a+%41' "images/$(printf '\\374')"
        "$@" serve --run 'nbdinfo --list --json "$uri" | grep export-name' dir:images
        """;
    Tools.Result result = run(java, locale, script, UTF_8).ok();
    assertThat(result.out().lines().map(String::strip))
        .containsExactly("\"export-name\": \"a+%41\",", "\"export-name\": \"ü\",");
    assertThat(result.err()).isEmpty();
  }
}
