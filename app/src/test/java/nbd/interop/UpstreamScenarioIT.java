package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * The design's table of scenarios, played by clients and read from the log of a real server behind:
 * the connections that each client flush flushes there, and their order. "1,0" are two steps, "0+1"
 * is one step in any order, "/" separates client flushes, and "-" is a client flush that flushes
 * none.
 */
@Timeout(300)
final class UpstreamScenarioIT {
  private static final List<String> SCENARIOS =
      List.of("F0 R0 F0", "R0 Z1 F3 Z2 R0 F3 F3", "R0 T1 F0 F1 R0 T2 F0 F2");
  private static final List<Integer> CONNECTIONS = List.of(3, 4, 3);

  @TempDir private Path directory;

  @ParameterizedTest(name = "{0}, {1}, {2}")
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          off        | emulate | not | 0+1+2 / 0+1+2 | 1,0+2+3 / 2,0+1+3 / 0+1+2+3 \
          | 1,0+2 / 0+1+2 / 2,0+1 / 0+1+2
          off        | plugin  | not | 0 / 0 | 3 / 3 / 3         | 0 / 1 / 0 / 2
          off        | disable | not | 0 / 0 | 3 / 3 / 3         | 0 / 1 / 0 / 2
          off        | unsafe  | not | 0 / 0 | 3 / 3 / 3         | 0 / 1 / 0 / 2
          off        | plugin  | mc  | 0 / 0 | 3 / 3 / 3         | 0 / 1 / 0 / 2
          connection | emulate | not | - / - | 1,0 / 2,0 / -     | 1,0 / - / 2,0 / -
          connection | auto    | not | - / - | 1,0 / 2,0 / -     | 1,0 / - / 2,0 / -
          connection | plugin  | mc  | - / - | 3 / 3 / -         | 0 / - / 0 / -
          connection | auto    | mc  | - / - | 3 / 3 / -         | 0 / - / 0 / -
          connection | plugin  | not | - / - | - / - / -         | 0 / 1 / 0 / 2
          connection | disable | not | - / - | - / - / -         | 0 / 1 / 0 / 2
          connection | unsafe  | not | - / - | 3 / 3 / -         | 0 / 1 / 0 / 2
          fast       | emulate | not | - / - | 1,0+2+3 / 2,0+1+3 / - | 1,0+2 / - / 2,0+1 / -
          fast       | plugin  | not | - / - | 3 / 3 / -         | 0 / - / 0 / -
          fast       | disable | not | - / - | 3 / 3 / -         | 0 / - / 0 / -
          fast       | unsafe  | not | - / - | 3 / 3 / -         | 0 / - / 0 / -
          fast       | plugin  | mc  | - / - | 3 / 3 / -         | 0 / - / 0 / -
          """)
  void theUpstreamsLogShowsTheseFlushes(
      String tracking, String mode, String upstream, String first, String second, String third)
      throws Exception {
    Path file = directory.resolve("log");
    List<String> arguments = new ArrayList<>(List.of("--filter=log"));
    arguments.addAll(
        upstream.equals("not")
            ? List.of("--filter=multi-conn", "memory", "16M", "multi-conn-mode=disable")
            : List.of("memory", "16M"));
    arguments.add("logfile=" + file);
    NbdkitLog log = new NbdkitLog(file);
    try (UpstreamProcess nbdkit =
            UpstreamProcess.nbdkit(directory, arguments.toArray(String[]::new));
        ServeProcess serve =
            ServeProcess.ready(
                "-U",
                directory.resolve("socket").toString(),
                "--multi-conn-mode=" + mode,
                "--multi-conn-track-dirty=" + tracking,
                nbdkit.uri())) {
      String[] expected = {first, second, third};
      int before = 0;
      for (int i = 0; i < expected.length; i++) {
        List<List<Integer>> flushed =
            play(SCENARIOS.get(i), CONNECTIONS.get(i), serve, log, before);
        before += CONNECTIONS.get(i);
        assertAre(flushed, expected[i], "scenario " + (i + 1));
      }
      serve.stopQuietly();
    }
  }

  /** Plays a scenario with connections of its own, which are flushed and closed at the end. */
  private static List<List<Integer>> play(
      String scenario, int connections, ServeProcess serve, NbdkitLog log, int before)
      throws IOException, InterruptedException {
    List<List<Integer>> flushes = new ArrayList<>();
    List<RawClient> clients = new ArrayList<>();
    for (int i = 0; i < connections; i++) {
      clients.add(RawClient.connect(serve.address()));
      clients.get(i).enter("");
    }
    for (String command : scenario.split(" ", -1)) {
      RawClient client = clients.get(command.charAt(1) - '0');
      switch (command.charAt(0)) {
        case 'R' -> client.read(0, 512);
        case 'Z' -> client.call(0, 0, RawClient.WRITE_ZEROES, 0, 512);
        case 'T' -> client.call(0, 0, RawClient.TRIM, 0, 512);
        default -> {
          int others = log.flushed().size();
          client.flush();
          flushes.add(
              log.flushedAfter(others).stream().map(number -> number - 1 - before).toList());
        }
      }
    }
    for (RawClient client : clients) {
      client.flush();
    }
    for (RawClient client : clients) {
      client.disconnect();
    }
    log.awaitDisconnected(before + connections);
    return flushes;
  }

  private static void assertAre(List<List<Integer>> flushed, String expected, String what) {
    String[] steps = expected.split(" / ", -1);
    assertThat(flushed).as(what).hasSize(steps.length);
    for (int i = 0; i < steps.length; i++) {
      assertIs(flushed.get(i), steps[i].strip(), what + ", client flush " + (i + 1));
    }
  }

  private static void assertIs(List<Integer> flushed, String expected, String what) {
    int from = 0;
    if (!expected.equals("-")) {
      for (String step : expected.split(",", -1)) {
        List<Integer> together =
            Arrays.stream(step.split("\\+", -1)).map(Integer::valueOf).toList();
        int to = Math.min(from + together.size(), flushed.size());
        assertThat(flushed.subList(from, to))
            .as("%s: %s of %s", what, step, flushed)
            .containsExactlyInAnyOrderElementsOf(together);
        from = to;
      }
    }
    assertThat(flushed).as(what).hasSize(from);
  }
}
