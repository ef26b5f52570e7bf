package nbd.interop;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A server that has too few descriptors ends with status 1 and one line. */
@Timeout(300)
final class FailureIT {
  @TempDir private Path directory;

  @Test
  void withTooFewDescriptorsItEndsWithStatusOneAndOneLine() throws Exception {
    Path disk = Files.write(directory.resolve("disk.img"), new byte[512]);
    // As many as the JVM itself needs, and a few more; with many more the server would start.
    for (int descriptors = 8; descriptors <= 10; descriptors++) {
      ProcessBuilder builder =
          ServeProcess.builder("-U", directory.resolve("socket").toString(), disk.toString());
      List<String> limited =
          new ArrayList<>(
              List.of("/bin/sh", "-c", "ulimit -n " + descriptors + "; exec \"$@\"", ""));
      limited.addAll(builder.command());
      ServeProcess.refusal(builder.command(limited));
    }
  }
}
