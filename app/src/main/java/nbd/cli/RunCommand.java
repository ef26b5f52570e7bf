package nbd.cli;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.locks.LockSupport;
import org.tinylog.Logger;

/** The command of {@code --run}: a shell and the processes that it has started. */
final class RunCommand {
  private static final long POLL_NANOS = 20_000_000;

  private final Process shell;

  private RunCommand(Process shell) {
    this.shell = shell;
  }

  /** Starts a command with these variables in its environment. */
  static RunCommand start(String command, Map<String, String> variables) throws IOException {
    ProcessBuilder builder = new ProcessBuilder("/bin/sh", "-c", command).inheritIO();
    restoreLocale(builder.environment());
    ServiceManager.VARIABLES.forEach(builder.environment()::remove);
    builder.environment().putAll(variables);
    return new RunCommand(builder.start());
  }

  /** Gives the command the user's locale, if the launcher has changed this program's. */
  private static void restoreLocale(Map<String, String> environment) {
    String users = System.getProperty("nbd.launcher.LC_ALL");
    if (users != null) {
      environment.remove("LC_ALL");
      if (!users.isEmpty()) {
        environment.put("LC_ALL", users);
      }
    }
  }

  /** Waits for the shell's end and returns its status: 128 and the signal's number if killed. */
  int waitFor() {
    return shell.onExit().join().exitValue();
  }

  /**
   * Ends the shell and the processes that it has started by SIGTERM, and after a time by SIGKILL. A
   * process whose parent has ended before is not found.
   *
   * @param patience the time that they have to clean up
   */
  void end(Duration patience) {
    Set<ProcessHandle> all = new LinkedHashSet<>(family(shell.toHandle()));
    all.forEach(ProcessHandle::destroy);
    long deadline = System.nanoTime() + patience.toNanos();
    while (all.stream().anyMatch(RunCommand::runs) && System.nanoTime() < deadline) {
      LockSupport.parkNanos(POLL_NANOS);
      // A process that cleans up may start others.
      List.copyOf(all).forEach(process -> all.addAll(family(process)));
    }
    List<ProcessHandle> left = all.stream().filter(RunCommand::runs).toList();
    if (!left.isEmpty()) {
      Logger.warn(
          "the command did not end within {} s of SIGTERM and is killed", patience.toSeconds());
      left.forEach(ProcessHandle::destroyForcibly);
    }
  }

  private static List<ProcessHandle> family(ProcessHandle process) {
    List<ProcessHandle> family = new ArrayList<>(process.descendants().toList());
    family.add(process);
    return family;
  }

  /** False for a zombie: it is alive until its parent asks for its status, but has no program. */
  private static boolean runs(ProcessHandle process) {
    return process.isAlive() && process.info().command().isPresent();
  }
}
