package nbd.testing;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * A mounted file system that answers when the test says so: {@code slow-files.py} in a process of
 * its own. When the process ends, every request that waits for it fails, so nothing hangs for ever.
 * Where it cannot be mounted, the test is skipped with the reason; with NBD_REQUIRE_TOOLS=1 it
 * fails.
 */
public final class SlowFiles implements AutoCloseable {
  private static final String SCRIPT = "slow-files.py";

  private final Path on;
  private final Process process;
  private final BufferedReader answers;

  /** The number of requests that the file system has reported as held. */
  private int held;

  private SlowFiles(Path on, Process process) {
    this.on = on;
    this.process = process;
    this.answers = process.inputReader(UTF_8);
  }

  /**
   * Mounts it on an empty directory.
   *
   * @param files each as NAME:SIZE; those with "slow" in the name can be held, those that begin
   *     with "direct" are not in the page cache
   */
  public static SlowFiles mount(Path on, String... files) throws IOException {
    if (!Files.exists(Path.of("/dev/fuse"))) {
      throw Missing.because("there is no /dev/fuse");
    }
    Path script = Files.createTempFile("slow-files", ".py");
    try (InputStream source = SlowFiles.class.getResourceAsStream(SCRIPT)) {
      Files.write(script, source == null ? new byte[0] : source.readAllBytes());
    }
    List<String> command = new ArrayList<>(List.of("python3", script.toString(), on.toString()));
    command.addAll(List.of(files));
    Process process;
    try {
      process = new ProcessBuilder(command).start();
    } catch (IOException noPython) {
      throw Missing.because("python3 is not installed");
    }
    SlowFiles mounted = new SlowFiles(on, process);
    if (!"ready".equals(mounted.answers.readLine())) {
      throw Missing.because(new String(process.getErrorStream().readAllBytes(), UTF_8).strip());
    }
    Files.delete(script);
    return mounted;
  }

  /** Returns a file of the file system. */
  public Path file(String name) {
    return on.resolve(name);
  }

  /** Keeps requests of these kinds (as FUSE names them: read, write, fsync...) unanswered. */
  public void hold(String operations) throws IOException {
    command("hold " + operations);
  }

  /** Answers the requests that are held, and holds none from now on. */
  public void release() throws IOException {
    command("release");
    held = 0;
  }

  private void command(String line) throws IOException {
    process.outputWriter(UTF_8).append(line).append('\n').flush();
    while (!"done".equals(answer())) {
      held++;
    }
  }

  /** Waits until so many requests have been held since the last release. */
  public void awaitHeld(int count) throws IOException {
    while (held < count) {
      answer();
      held++;
    }
  }

  private String answer() throws IOException {
    String line = answers.readLine();
    if (line == null) {
      throw new IOException(
          "the file system has ended: "
              + new String(process.getErrorStream().readAllBytes(), UTF_8));
    }
    return line;
  }

  @Override
  public void close() throws IOException {
    process.outputWriter(UTF_8).close();
    try {
      if (!process.waitFor(10, TimeUnit.SECONDS)) {
        process.destroyForcibly().waitFor();
        new ProcessBuilder("umount", "-l", on.toString()).inheritIO().start().waitFor();
      }
    } catch (InterruptedException interrupted) {
      throw new IOException(interrupted);
    }
  }
}
