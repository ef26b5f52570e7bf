package nbd.cli;

import java.io.IOException;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.locks.ReentrantLock;
import nbd.cli.ListenOptions.Listening;
import nbd.server.Exports;
import nbd.server.Server;
import nbd.server.TlsPolicy;
import nbd.tls.CertificateFileException;
import nbd.tls.TlsServer;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;
import picocli.CommandLine.ExitCode;

/**
 * A running server with what belongs to it on this machine: socket, pid file, statistics, signals,
 * and perhaps a command that uses it.
 */
final class Service {
  /** How long clients have to take their last replies. */
  private static final Duration PATIENCE = Duration.ofSeconds(10);

  private final Exports exports;
  private final Duration handshakeTimeout;
  private final long memory;
  private final TlsPolicy tls;
  private final Optional<PidFile> pidFile;
  private final StatisticsReport report;
  private final Thread classes = OwnClasses.load();

  /** Guards what follows: what has been started so far, and whether it was ended. */
  private final ReentrantLock lock = new ReentrantLock();

  private @Nullable Listening listening;
  private @Nullable Server server;
  private @Nullable RunCommand command;
  private boolean ended;
  private int endStatus;

  Service(
      Exports exports,
      Duration handshakeTimeout,
      long memory,
      TlsPolicy tls,
      Optional<PidFile> pidFile,
      StatisticsReport report) {
    this.exports = exports;
    this.handshakeTimeout = handshakeTimeout;
    this.memory = memory;
    this.tls = tls;
    this.pidFile = pidFile;
    this.report = report;
  }

  /** How the listening socket is made. */
  @FunctionalInterface
  interface Listen {
    Listening now() throws IOException;
  }

  /**
   * Serves until a signal.
   *
   * @return the exit status
   * @throws IOException if it could not start; the message is for the user
   */
  int serve(Listen listen) throws IOException {
    ExitStatus.onSignal(this::endOnSignal);
    try {
      Server started = start(listen, true);
      if (started != null) {
        started.serve();
      }
    } finally {
      end();
    }
    return end();
  }

  /**
   * Serves while a command of the shell runs. A signal ends the command, then the server, and is
   * the status: 128 and its number.
   *
   * @return the command's exit status, or 1 if it was 0 and the end failed
   * @throws IOException if it could not start; the message is for the user
   */
  int serveCommand(String shellCommand, Listen listen) throws IOException {
    ExitStatus.beforeSignal(this::endOnSignal);
    try {
      Server started = start(listen, false);
      RunCommand running = run(shellCommand);
      if (started == null || running == null) {
        return end();
      }
      Thread.ofPlatform()
          .name("command")
          .start(
              () -> {
                running.waitFor();
                end();
              });
      started.serve();
      int status = running.waitFor();
      int ending = end();
      return status == ExitCode.OK ? ending : status;
    } finally {
      end();
    }
  }

  /** Starts the command, unless a signal has come before. */
  private @Nullable RunCommand run(String shellCommand) throws IOException {
    lock.lock();
    try {
      if (ended || listening == null) {
        return null;
      }
      String socket = listening.socket().map(path -> path.toAbsolutePath().toString()).orElse("");
      command =
          RunCommand.start(
              shellCommand, Map.of("uri", listening.uri().toString(), "unixsocket", socket));
      return command;
    } finally {
      lock.unlock();
    }
  }

  /**
   * Starts, unless a signal has come before.
   *
   * @param announce whether to print the ready line; with a command, standard output is the
   *     command's
   */
  private @Nullable Server start(Listen listen, boolean announce) throws IOException {
    lock.lock();
    try {
      if (ended) {
        return null;
      }
      tls.server().ifPresent(Service::reloadOnHangUp);
      Listening made = listen.now();
      listening = made;
      awaitClasses();
      Server started = new Server(made.channel(), exports, handshakeTimeout, memory, tls);
      server = started;
      if (pidFile.isPresent()) {
        pidFile.get().write();
      }
      if (announce) {
        System.out.println("nbd-multiconn: ready " + made.uri());
        System.out.flush();
      }
      Logger.debug("{} is served at {}", exports.backend().name(), made.uri());
      return started;
    } finally {
      lock.unlock();
    }
  }

  private void awaitClasses() {
    try {
      classes.join();
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private static void reloadOnHangUp(TlsServer server) {
    HangUp.onSignal(
        () -> {
          try {
            server.reload();
            Logger.info("SIGHUP: the certificates were read again");
          } catch (CertificateFileException unusable) {
            Logger.error("SIGHUP: the certificates stay as they were: {}", unusable.getMessage());
          }
        });
  }

  /**
   * Ends everything in order, once: the command, accepting, what is in flight, the storage, and
   * what was put into the file system.
   *
   * @return the exit status
   */
  private int end() {
    lock.lock();
    try {
      if (!ended) {
        ended = true;
        endStatus = endAll() ? ExitCode.OK : ExitCode.SOFTWARE;
      }
      return endStatus;
    } finally {
      lock.unlock();
    }
  }

  /** As {@link #end}, and says so. */
  private int endOnSignal() {
    lock.lock();
    try {
      if (!ended) {
        int clients = server == null ? 0 : server.connections();
        Logger.info("stopping on a signal, connections: {}", clients);
      }
      return end();
    } finally {
      lock.unlock();
    }
  }

  private boolean endAll() {
    boolean well = true;
    if (command != null) {
      command.end(PATIENCE);
    }
    if (listening != null) {
      // Before it is closed, as what has its place afterwards may be another server's.
      well &= succeeds(listening::removeFiles);
    }
    exports.backend().stopWaiting();
    if (server != null) {
      well &= server.stop(PATIENCE);
    }
    well &= succeeds(() -> exports.backend().close());
    if (listening != null) {
      well &= succeeds(listening.channel()::close);
    }
    well &= succeeds(report::write);
    if (pidFile.isPresent()) {
      well &= succeeds(pidFile.get()::remove);
    }
    return well;
  }

  /** One step of the end. */
  @FunctionalInterface
  private interface Step {
    void run() throws IOException;
  }

  /** Does a step; a failure is reported, and the next one is done all the same. */
  private static boolean succeeds(Step step) {
    try {
      step.run();
      return true;
    } catch (IOException failure) {
      Logger.error("at the end: {}", failure.getMessage());
    } catch (RuntimeException | Error mistake) {
      Logger.error("at the end: {}", Failure.words(mistake));
    }
    return false;
  }
}
