package nbd.cli;

import java.io.IOException;
import java.util.Optional;
import nbd.posix.OtherProcess;

/**
 * This process, or the launcher that started it and passes signals, streams and the status on: what
 * others know as the server's process.
 *
 * @param pid the process ID
 * @param isLauncher whether it is the launcher
 */
record OwnProcess(long pid, boolean isLauncher) {
  /** Returns the process that others see: the launcher, if there is one. */
  static OwnProcess visible() {
    Long launcher = Long.getLong("nbd.launcher.pid");
    return launcher == null
        ? new OwnProcess(ProcessHandle.current().pid(), false)
        : new OwnProcess(launcher, true);
  }

  /** Finds which of the two has this process ID, if one has. */
  static Optional<OwnProcess> of(String pid) {
    OwnProcess self = new OwnProcess(ProcessHandle.current().pid(), false);
    OwnProcess visible = visible();
    if (pid.equals(Long.toString(self.pid))) {
      return Optional.of(self);
    }
    return pid.equals(Long.toString(visible.pid)) ? Optional.of(visible) : Optional.empty();
  }

  /**
   * Opens the process that started it.
   *
   * @throws IOException with a message for the user
   */
  OtherProcess parent() throws IOException {
    long parent =
        ProcessHandle.of(pid)
            .flatMap(ProcessHandle::parent)
            .map(ProcessHandle::pid)
            .orElseThrow(
                () -> new IOException("--exit-with-parent: the parent process cannot be seen"));
    try {
      return OtherProcess.open(parent);
    } catch (IOException failure) {
      throw new IOException(
          "--exit-with-parent: the parent process cannot be watched: " + failure.getMessage(),
          failure);
    }
  }
}
