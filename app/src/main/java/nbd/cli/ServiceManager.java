package nbd.cli;

import java.io.IOException;
import java.net.SocketTimeoutException;
import java.time.Duration;
import java.time.temporal.ChronoUnit;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import nbd.posix.Descriptor;
import nbd.posix.UnixDatagram;
import org.tinylog.Logger;

/**
 * The service manager that started this process, such as systemd, to which the server tells its
 * state; without one, nothing is sent. Any thread may call. Sources: the manual pages sd_notify(3),
 * sd_watchdog_enabled(3).
 */
final class ServiceManager {
  /** The variables that concern this process only: a command that it starts does not get them. */
  static final Set<String> VARIABLES =
      Set.of(
          "LISTEN_PID",
          "LISTEN_FDS",
          "LISTEN_FDNAMES",
          "LISTEN_PIDFDID",
          "FDSTORE",
          "NOTIFY_SOCKET",
          "WATCHDOG_PID",
          "WATCHDOG_USEC");

  /** The longest time for which the status may be an old one. */
  private static final long STATUS_MICROS = TimeUnit.SECONDS.toMicros(10);

  /** Longer than the clients of the server before take to be counted. */
  private static final long FIRST_STATUS_MICROS = TimeUnit.SECONDS.toMicros(1);

  /** The time that it has to make room for a notice. */
  private static final Duration PATIENCE = Duration.ofSeconds(2);

  private final String socket;
  private final Optional<Duration> watchdog;
  private final int storeSize;
  private volatile boolean failed;

  private ServiceManager(String socket, Optional<Duration> watchdog, int storeSize) {
    this.socket = socket;
    this.watchdog = watchdog;
    this.storeSize = storeSize;
  }

  /** Reads the environment variables. */
  static ServiceManager of(Map<String, String> environment) {
    String pid = environment.getOrDefault("WATCHDOG_PID", "");
    String micros = environment.getOrDefault("WATCHDOG_USEC", "");
    boolean watches =
        (pid.isEmpty() || OwnProcess.of(pid).isPresent()) && micros.matches("0*[1-9]\\d{0,17}");
    String socket = environment.getOrDefault("NOTIFY_SOCKET", "");
    String store = environment.getOrDefault("FDSTORE", "");
    return new ServiceManager(
        socket,
        watches
            ? Optional.of(Duration.of(Long.parseLong(micros), ChronoUnit.MICROS))
            : Optional.empty(),
        !socket.isEmpty() && store.matches("\\d{1,9}") ? Integer.parseInt(store) : 0);
  }

  /** Says that clients can connect. */
  void ready() {
    OwnProcess visible = OwnProcess.visible();
    send("READY=1" + (visible.isLauncher() ? "\nMAINPID=" + ProcessHandle.current().pid() : ""));
  }

  /** Says that files are read again, until {@link #ready}. */
  void reloading() {
    // On Linux this is the clock CLOCK_MONOTONIC.
    send("RELOADING=1\nMONOTONIC_USEC=" + TimeUnit.NANOSECONDS.toMicros(System.nanoTime()));
  }

  /** Says that another process is the service's main one from now on. */
  void replacedBy(long process) {
    send("MAINPID=" + process);
  }

  /** Says that the server ends. */
  void stopping() {
    send("STOPPING=1\nSTATUS=stopping");
  }

  /** Returns how many files it keeps for the service's next start; 0 if it keeps none. */
  int storeSize() {
    return storeSize;
  }

  /**
   * Lets it keep a file for the service's next start.
   *
   * @param file stays the caller's
   * @throws IOException if it is not reached, or not in time
   */
  void store(String name, Descriptor file, Duration patience) throws IOException {
    // Without FDPOLL=0 it drops a connection that the client has ended.
    String notice = "FDSTORE=1\nFDPOLL=0\nFDNAME=" + name;
    UnixDatagram.send(socket, notice, List.of(file), patience);
  }

  /** Lets it close files that it keeps. */
  void dropStored(List<String> names) {
    for (String name : names) {
      send("FDSTOREREMOVE=1\nFDNAME=" + name);
      if (failed) {
        return;
      }
    }
  }

  /**
   * Waits until it has taken in all that was sent.
   *
   * @throws IOException if it does not in time, or is not reached
   */
  void awaitTaken(Duration patience) throws IOException {
    try {
      UnixDatagram.sendAndWait(socket, "BARRIER=1", patience);
    } catch (SocketTimeoutException late) {
      throw new IOException("the service manager does not answer in time", late);
    }
  }

  /**
   * Tells the status from now on, by a thread of its own, whenever it has changed; and to a
   * watchdog, twice in its time, that the server works.
   *
   * @param status a line for people
   * @param works whether the server works; while it does not, the watchdog hears nothing, and may
   *     kill the process
   */
  void watch(Supplier<String> status, BooleanSupplier works) {
    if (socket.isEmpty()) {
      return;
    }
    long half = watchdog.map(time -> time.dividedBy(2).toNanos() / 1000).orElse(STATUS_MICROS);
    ScheduledExecutorService timer =
        Executors.newSingleThreadScheduledExecutor(
            Thread.ofPlatform().daemon().name("service manager").factory());
    String[] last = {""};
    Runnable tell =
        () -> {
          String now = status.get();
          String text = now.equals(last[0]) ? "" : "STATUS=" + now + "\n";
          last[0] = now;
          String alive = watchdog.isPresent() && works.getAsBoolean() ? "WATCHDOG=1\n" : "";
          if (!text.isEmpty() || !alive.isEmpty()) {
            send((text + alive).stripTrailing());
          }
        };
    Future<?> _ =
        timer.scheduleAtFixedRate(
            tell,
            Math.min(half, FIRST_STATUS_MICROS),
            Math.max(1, Math.min(half, STATUS_MICROS)),
            TimeUnit.MICROSECONDS);
  }

  private void send(String state) {
    if (socket.isEmpty()) {
      return;
    }
    try {
      UnixDatagram.send(socket, state, List.of(), PATIENCE);
      failed = false;
    } catch (IOException failure) {
      if (!failed) {
        Logger.warn("the service manager (NOTIFY_SOCKET) is not reached: {}", failure.getMessage());
      }
      failed = true;
    }
  }
}
