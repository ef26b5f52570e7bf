package nbd.testing;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Data and processes of the tests' Ceph cluster, when its daemons are killed and at its end. */
@Timeout(300)
final class CephClusterTest {
  @TempDir private Path directory;

  @Test
  void whatWasFlushedSurvivesKillsAndNothingSurvivesClose() throws Exception {
    Path source = Files.write(directory.resolve("source"), Bytes.random(1, 1 << 20));
    Path conf;
    try (CephCluster cluster = CephCluster.start()) {
      conf = cluster.conf();
      assertThat(daemons(conf)).hasSize(2);
      cluster.run("rbd", "import", source.toString(), "disk");

      cluster.killOsd();
      cluster.killMonitor();
      cluster.startMonitor();
      cluster.startOsd();
      Path copy = directory.resolve("copy");
      cluster.run("rbd", "export", "disk", copy.toString());
      assertThat(copy).hasSameBinaryContentAs(source);

      assertThatThrownBy(() -> cluster.run("rbd", "info", "other"))
          .isInstanceOf(IOException.class)
          .hasMessageContaining("No such file or directory");
    }
    assertThat(conf.getParent()).doesNotExist();
    assertThat(daemons(conf)).isEmpty();
  }

  private static Stream<ProcessHandle> daemons(Path conf) {
    return ProcessHandle.allProcesses()
        .filter(process -> process.info().commandLine().orElse("").contains(conf.toString()));
  }
}
