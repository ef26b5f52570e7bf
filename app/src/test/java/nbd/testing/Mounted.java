package nbd.testing;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assumptions.abort;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * A file system or block device of a test's own, which {@link #close} removes. Where the machine
 * allows none, the test is skipped with the reason.
 */
public final class Mounted implements AutoCloseable {
  private final Path path;
  private final List<String> undo;

  private Mounted(Path path, List<String> undo) {
    this.path = path;
    this.undo = undo;
  }

  /** Mounts a tmpfs on an empty directory; mount's options are for example {@code size=1m}. */
  public static Mounted tmpfs(Path on, String options) throws IOException {
    assumeRoot();
    run("mount", "-t", "tmpfs", "-o", options, "tmpfs", on.toString());
    return new Mounted(on, List.of("umount", "-l", on.toString()));
  }

  /** Makes an ext4 in a file of zeroes, and mounts it on an empty directory. */
  public static Mounted ext4(Path image, Path on) throws IOException {
    assumeRoot();
    run("mkfs.ext4", "-q", "-F", image.toString());
    run("mount", "-o", "loop", image.toString(), on.toString());
    return new Mounted(on, List.of("umount", on.toString()));
  }

  /** Makes a block device whose content is a file's; the options are losetup's. */
  public static Mounted loop(Path image, String... options) throws IOException {
    assumeRoot();
    List<String> command = new ArrayList<>(List.of("losetup"));
    command.addAll(List.of(options));
    command.addAll(List.of("-f", "--show", image.toString()));
    String device = run(command.toArray(String[]::new)).strip();
    return new Mounted(Path.of(device), List.of("losetup", "-d", device));
  }

  private static void assumeRoot() {
    assumeTrue(System.getProperty("user.name").equals("root"), "only root may mount");
  }

  /** Mounts it again with other options. */
  public void remount(String options) throws IOException {
    run("mount", "-o", "remount," + options, path.toString());
  }

  /** Returns the mount point, or the device. */
  public Path path() {
    return path;
  }

  private static String run(String... command) throws IOException {
    Process process;
    try {
      process = new ProcessBuilder(command).redirectErrorStream(true).start();
    } catch (IOException missing) {
      return abort(command[0] + " is not installed");
    }
    String said = new String(process.getInputStream().readAllBytes(), UTF_8);
    try {
      if (process.waitFor() != 0) {
        return abort("this machine does not allow it: %s".formatted(said.strip()));
      }
    } catch (InterruptedException interrupted) {
      throw new IOException(interrupted);
    }
    return said;
  }

  @Override
  public void close() throws IOException {
    try {
      if (new ProcessBuilder(undo).inheritIO().start().waitFor() != 0) {
        throw new IOException("%s failed".formatted(undo));
      }
    } catch (InterruptedException interrupted) {
      throw new IOException(interrupted);
    }
  }
}
