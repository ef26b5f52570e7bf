package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import java.util.List;
import java.util.jar.JarFile;
import nbd.testing.Eventually;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The log of a server in a process of its own. */
@Timeout(300)
final class LogIT {
  private static final String LINE =
      "\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d\\.\\d{3}[+-]\\d\\d:\\d\\d nbd-multiconn:"
          + " (ERROR|WARN |INFO |DEBUG) .*";

  @TempDir private Path directory;

  private String socket() {
    return directory.resolve("socket").toString();
  }

  @Test
  void everyLineHasTheSameFormatWithAndWithoutVerbose() throws Exception {
    for (String[] verbose : new String[][] {{}, {"-v"}}) {
      List<String> arguments = new java.util.ArrayList<>(List.of(verbose));
      arguments.addAll(List.of("-U", socket(), "--error-read=1:EIO", "null:1M"));
      try (ServeProcess serve = ServeProcess.ready(arguments.toArray(String[]::new))) {
        try (RawClient client = serve.client()) {
          client.call(RawClient.EIO, 0, RawClient.READ, 0, 512).disconnect();
        }
        try (RawClient client = RawClient.connect(serve.address())) {
          client.hello(3).option(RawClient.GO, RawClient.infoData("x\n\u0085\u202ey"));
          client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN);
        }
        Eventually.isTrue("it is logged", () -> serve.said("x???y"));
        serve.stop();
        List<String> lines = serve.log().lines().filter(line -> !line.startsWith("  ")).toList();
        assertThat(lines).allMatch(line -> line.matches(LINE));
        assertThat(lines.stream().filter(line -> !line.contains("DEBUG")))
            .as("of a failed READ, a wrong name and the end, one line each")
            .hasSize(3);
        assertThat(serve.log().contains("\n  ")).as("stacks").isEqualTo(verbose.length > 0);
      }
    }
  }

  @Test
  void aClientOnAUnixSocketIsNamedByItsProcessAndUser() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-U", socket(), "null:1M");
        RawClient client = RawClient.connect(serve.address())) {
      client.hello(3).option(RawClient.GO, RawClient.infoData("wrong"));
      client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN);
      Eventually.isTrue("it is logged", () -> serve.said("\"wrong\""));
      String own = "from pid " + ProcessHandle.current().pid() + ", uid ";
      assertThat(serve.err()).contains(exportsSockets() ? own : "from user ");
    }
  }

  /** Says whether the jar's manifest has the export that UnixPeer needs, as the build's jar has. */
  private static boolean exportsSockets() throws Exception {
    try (JarFile jar = new JarFile(System.getProperty("nbd.jar"))) {
      return jar.getManifest().getMainAttributes().getValue("Add-Exports") != null;
    }
  }

  @Test
  void stoppingOnASignalIsALine() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-U", socket(), "null:1M")) {
      serve.stop();
      assertThat(serve.log()).hasLineCount(1).contains("INFO  stopping on a signal");
    }
  }
}
