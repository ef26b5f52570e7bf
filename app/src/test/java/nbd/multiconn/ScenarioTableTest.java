package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import nbd.protocol.CommandFlags;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * The backend flushes of three scripts, one command after the other, in each mode and level: the
 * table of the design. "1,0" are two steps, "0+1" one step in any order, "/" stands between client
 * flushes, "-" is a client flush without any.
 */
class ScenarioTableTest {
  private static final String S1 = "F0 R0 F0";
  private static final String S2 = "R0 Z1 F3 Z2 R0 F3 F3";
  private static final String S3 = "R0 T1 F0 F1 R0 T2 F0 F2";

  @ParameterizedTest(name = "{0}, {1}, {2}: {3} {4}")
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          OFF        | EMULATE | not | S1 | 0+1+2 / 0+1+2
          OFF        | EMULATE | not | S2 | 1,0+2+3 / 2,0+1+3 / 0+1+2+3
          OFF        | EMULATE | not | S3 | 1,0+2 / 0+1+2 / 2,0+1 / 0+1+2
          OFF        | EMULATE | mc  | S2 | 1,0+2+3 / 2,0+1+3 / 0+1+2+3
          OFF        | PLUGIN  | not | S1 | 0 / 0
          OFF        | PLUGIN  | not | S2 | 3 / 3 / 3
          OFF        | PLUGIN  | not | S3 | 0 / 1 / 0 / 2
          OFF        | DISABLE | not | S2 | 3 / 3 / 3
          OFF        | UNSAFE  | not | S3 | 0 / 1 / 0 / 2
          OFF        | PLUGIN  | mc  | S1 | 0 / 0
          OFF        | PLUGIN  | mc  | S2 | 3 / 3 / 3
          OFF        | PLUGIN  | mc  | S3 | 0 / 1 / 0 / 2
          CONNECTION | EMULATE | not | S1 | - / -
          CONNECTION | EMULATE | not | S2 | 1,0 / 2,0 / -
          CONNECTION | EMULATE | not | S3 | 1,0 / - / 2,0 / -
          CONNECTION | AUTO    | not | S2 | 1,0 / 2,0 / -
          CONNECTION | AUTO    | not | S3 | 1,0 / - / 2,0 / -
          CONNECTION | PLUGIN  | mc  | S1 | - / -
          CONNECTION | PLUGIN  | mc  | S2 | 3 / 3 / -
          CONNECTION | PLUGIN  | mc  | S3 | 0 / - / 0 / -
          CONNECTION | AUTO    | mc  | S2 | 3 / 3 / -
          CONNECTION | AUTO    | mc  | S3 | 0 / - / 0 / -
          CONNECTION | EMULATE | mc  | S2 | 3 / 3 / -
          CONNECTION | PLUGIN  | not | S1 | - / -
          CONNECTION | PLUGIN  | not | S2 | - / - / -
          CONNECTION | PLUGIN  | not | S3 | 0 / 1 / 0 / 2
          CONNECTION | DISABLE | not | S1 | - / -
          CONNECTION | DISABLE | not | S2 | - / - / -
          CONNECTION | DISABLE | not | S3 | 0 / 1 / 0 / 2
          CONNECTION | UNSAFE  | not | S1 | - / -
          CONNECTION | UNSAFE  | not | S2 | 3 / 3 / -
          CONNECTION | UNSAFE  | not | S3 | 0 / 1 / 0 / 2
          FAST       | EMULATE | not | S1 | - / -
          FAST       | EMULATE | not | S2 | 1,0+2+3 / 2,0+1+3 / -
          FAST       | EMULATE | not | S3 | 1,0+2 / - / 2,0+1 / -
          FAST       | PLUGIN  | not | S1 | - / -
          FAST       | PLUGIN  | not | S2 | 3 / 3 / -
          FAST       | PLUGIN  | not | S3 | 0 / - / 0 / -
          FAST       | DISABLE | not | S1 | - / -
          FAST       | DISABLE | not | S2 | 3 / 3 / -
          FAST       | DISABLE | not | S3 | 0 / - / 0 / -
          FAST       | UNSAFE  | not | S1 | - / -
          FAST       | UNSAFE  | not | S2 | 3 / 3 / -
          FAST       | UNSAFE  | not | S3 | 0 / - / 0 / -
          FAST       | PLUGIN  | mc  | S2 | 3 / 3 / -
          FAST       | PLUGIN  | mc  | S3 | 0 / - / 0 / -
          """)
  void aScriptCausesTheseFlushes(
      TrackDirty tracking, MultiConnMode mode, String backend, String script, String expected)
      throws IOException {
    Scene scene =
        Scene.of(
            backend.equals("mc") ? Scene.MULTI_CONN : Scene.WRITABLE,
            mode,
            tracking,
            script.equals("S2") ? 4 : 3);

    List<List<Integer>> flushes = run(commands(script), scene);

    String[] steps = expected.split(" / ", -1);
    assertThat(flushes).hasSize(steps.length);
    for (int i = 0; i < steps.length; i++) {
      assertIs(flushes.get(i), steps[i].strip(), "client flush " + (i + 1));
    }
  }

  private static String commands(String script) {
    return switch (script) {
      case "S1" -> S1;
      case "S2" -> S2;
      default -> S3;
    };
  }

  private static List<List<Integer>> run(String script, Scene scene) throws IOException {
    List<List<Integer>> flushes = new ArrayList<>();
    for (String command : script.split(" ", -1)) {
      int number = command.charAt(1) - '0';
      switch (command.charAt(0)) {
        case 'R' -> scene.read(number);
        case 'Z' -> scene.handle(number).zero(0, 512, CommandFlags.NONE);
        case 'T' -> scene.handle(number).trim(0, 512, CommandFlags.NONE);
        default -> flushes.add(scene.flushed(number));
      }
    }
    return flushes;
  }

  private static void assertIs(List<Integer> flushed, String expected, String what) {
    int from = 0;
    if (!expected.equals("-")) {
      for (String step : expected.split(",", -1)) {
        List<Integer> together = new ArrayList<>();
        for (String number : step.split("\\+", -1)) {
          together.add(Integer.valueOf(number));
        }
        assertThat(flushed).as(what).hasSizeGreaterThanOrEqualTo(from + together.size());
        assertThat(new HashSet<>(flushed.subList(from, from + together.size())))
            .as("%s: %s", what, flushed)
            .isEqualTo(new HashSet<>(together));
        from += together.size();
      }
    }
    assertThat(flushed).as(what).hasSize(from);
  }
}
