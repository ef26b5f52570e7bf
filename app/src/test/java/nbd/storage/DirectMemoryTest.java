package nbd.storage;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import nbd.protocol.NbdException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The memory outside the heap, in a JVM that does not say how much is used. */
@Timeout(300)
final class DirectMemoryTest {
  /** Run by the JVM that the test starts. */
  static final class Allocation {
    private Allocation() {}

    /** Prints how many bytes it gets. */
    public static void main(String[] arguments) throws NbdException {
      System.out.print(DirectMemory.JVM.allocate(4096).capacity());
    }
  }

  @Test
  void aJvmWithoutTheManagementModulesGivesMemoryOutToo() throws Exception {
    Process java =
        new ProcessBuilder(
                List.of(
                    Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                    "--limit-modules",
                    "java.base",
                    "-cp",
                    System.getProperty("java.class.path"),
                    Allocation.class.getName()))
            .redirectErrorStream(true)
            .start();
    String printed = new String(java.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(printed).isEqualTo("4096");
    assertThat(java.waitFor()).isZero();
  }
}
