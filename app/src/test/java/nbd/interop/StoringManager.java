package nbd.interop;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.Writer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * A stand-in for systemd, which restarts a service and keeps its files meanwhile: FDSTORE of
 * sd_notify(3). It sends no signal but SIGTERM, and passes the files newest first, as systemd 252.
 */
final class StoringManager implements AutoCloseable {
  private static final String SCRIPT =
      """
      import fcntl, os, signal, socket, subprocess, sys, threading
      address, size, told, command = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
      notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
      notices.bind(address)
      stored, ready, hangs = [], threading.Semaphore(0), False

      def listen():
        while True:
          text, files, _, _ = socket.recv_fds(notices, 4096, 8)
          fields = dict(line.split("=", 1) for line in text.decode().splitlines())
          name = fields.get("FDNAME")
          if fields.get("BARRIER") and hangs:
            continue
          for file in files: os.set_inheritable(file, False)
          if "FDSTORE" in fields and len(stored) < int(size):
            stored[:0] = [(name, file) for file in files]
          else:
            for file in files: os.close(file)
          if "FDSTOREREMOVE" in fields:
            for entry in [each for each in stored if each[0] == name]:
              stored.remove(entry)
              os.close(entry[1])
          if "READY" in fields: ready.release()

      def start(options):
        passed = list(stored)
        def place():
          high = [fcntl.fcntl(file, fcntl.F_DUPFD, 500) for _, file in passed]
          for i, file in enumerate(high): os.dup2(file, 3 + i)
          for file in high: os.close(file)
        env = dict(os.environ, NOTIFY_SOCKET=address, FDSTORE=told)
        if passed:
          env.update(LISTEN_FDS=str(len(passed)), LISTEN_FDNAMES=":".join(name for name, _ in passed))
        script = 'export LISTEN_PID=$$; exec "$@"'
        child = subprocess.Popen(["/bin/sh", "-c", script, "sh"] + command + options,
            env=env, close_fds=False, preexec_fn=place)
        while not ready.acquire(timeout=0.1):
          if child.poll() is not None:
            print("the service ended", flush=True)
            break
        return child

      threading.Thread(target=listen, daemon=True).start()
      child = start(sys.stdin.readline().split())
      print("started", flush=True)
      for line in sys.stdin:
        if line == "hang\\n":
          hangs = True
          continue
        child.send_signal(signal.SIGTERM)
        status, kept = child.wait(), len(stored)
        if line == "stop\\n":
          print("stopped", status, kept, flush=True)
          break
        child = start(line.split())
        print("restarted", status, kept, len(stored), flush=True)
      """;

  private final Process process;
  private final Writer orders;
  private final BufferedReader answers;

  /**
   * Starts a service.
   *
   * @param size the most files that are kept
   * @param told what the service is told of this
   * @param log gets the service's standard error
   * @param arguments of serve, without spaces
   */
  StoringManager(Path directory, int size, int told, Path log, String... arguments)
      throws IOException {
    List<String> command = new ArrayList<>(List.of("python3", "-c", SCRIPT));
    command.addAll(List.of(directory.resolve("manager").toString(), "" + size, "" + told));
    command.addAll(ServeProcess.builder().command());
    process = new ProcessBuilder(command).redirectError(log.toFile()).start();
    orders = process.outputWriter(UTF_8);
    answers = process.inputReader(UTF_8);
    boolean started = false;
    try {
      order(arguments);
      assertThat(answer()).isEqualTo("started");
      started = true;
    } finally {
      if (!started) {
        close();
      }
    }
  }

  /**
   * Restarts the service.
   *
   * @param kept the files that are kept meanwhile
   */
  void restart(int kept, String... arguments) throws IOException {
    order(arguments);
    assertThat(answer()).isEqualTo("restarted 0 " + kept + " 0");
  }

  /** Restarts the service, which does not start again. */
  void restartInVain(int kept, String... arguments) throws IOException {
    order(arguments);
    assertThat(answer()).isEqualTo("the service ended");
    assertThat(answer()).isEqualTo("restarted 0 " + kept + " " + kept);
  }

  /**
   * Starts the service, which has ended.
   *
   * @param status with which it has ended
   */
  void startAgain(int status, int kept, String... arguments) throws IOException {
    order(arguments);
    assertThat(answer()).isEqualTo("restarted " + status + " " + kept + " 0");
  }

  /** Stops to tell the service that it has taken in what was sent. */
  void hang() throws IOException {
    order("hang");
  }

  /** Stops it; all that is kept is closed. */
  void stop(int kept) throws Exception {
    order("stop");
    assertThat(answer()).isEqualTo("stopped 0 " + kept);
    assertThat(process.waitFor(2, TimeUnit.MINUTES)).isTrue();
  }

  private void order(String... words) throws IOException {
    orders.write(String.join(" ", words) + "\n");
    orders.flush();
  }

  private String answer() throws IOException {
    String line = answers.readLine();
    while (line != null && line.startsWith("nbd-multiconn: ready ")) {
      line = answers.readLine();
    }
    return line;
  }

  @Override
  public void close() {
    process.descendants().forEach(ProcessHandle::destroyForcibly);
    process.destroyForcibly();
  }
}
