package nbd.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
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
  private final @Nullable Path pidFile;
  private final StatisticsReport report;

  /** Guards what follows: what has been started so far, and whether it was ended. */
  private final ReentrantLock lock = new ReentrantLock();

  private @Nullable Listening listening;
  private @Nullable Server server;
  private @Nullable Process command;
  private boolean pidWritten;
  private boolean ended;
  private int endStatus;

  Service(
      Exports exports,
      Duration handshakeTimeout,
      long memory,
      TlsPolicy tls,
      @Nullable Path pidFile,
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

  /** How a listening socket is made in a place of this class's choice. */
  @FunctionalInterface
  interface ListenAt {
    Listening at(Path socket) throws IOException;
  }

  /**
   * Serves until a signal.
   *
   * @return the exit status
   * @throws IOException if it could not start; the message is for the user
   */
  int serve(Listen listen) throws IOException {
    ExitStatus.onSignal(this::end);
    try {
      Server started = start(listen, true);
      if (started != null) {
        started.serve();
      }
    } catch (IOException failure) {
      end();
      throw failure;
    }
    return end();
  }

  /**
   * Serves on a private socket while a command of the shell runs.
   *
   * @return the command's exit status, or 1 if it was 0 and the end failed
   * @throws IOException if it could not start; the message is for the user
   */
  int serveCommand(String shellCommand, ListenAt listen) throws IOException {
    ExitStatus.onSignal(this::end);
    Path directory = Files.createTempDirectory("nbd-multiconn-");
    Path socket = directory.resolve("socket");
    try {
      Server started = start(() -> listen.at(socket), false);
      if (started != null) {
        Thread accepting = Thread.ofPlatform().name("accept").start(started::serve);
        int status = run(shellCommand, socket);
        int ending = end();
        join(accepting);
        return status == ExitCode.OK ? ending : status;
      }
      return end();
    } catch (IOException failure) {
      end();
      throw failure;
    } finally {
      Files.deleteIfExists(socket);
      Files.deleteIfExists(directory);
    }
  }

  private int run(String shellCommand, Path socket) throws IOException {
    ProcessBuilder builder = new ProcessBuilder("/bin/sh", "-c", shellCommand).inheritIO();
    Process process;
    lock.lock();
    try {
      if (ended || listening == null) {
        return endStatus;
      }
      builder.environment().put("uri", listening.uri().toString());
      builder.environment().put("unixsocket", socket.toString());
      process = builder.start();
      command = process;
    } finally {
      lock.unlock();
    }
    while (true) {
      try {
        return process.waitFor();
      } catch (InterruptedException ignored) {
        Logger.debug("interrupted while the command runs");
      }
    }
  }

  private static void join(Thread thread) {
    try {
      thread.join();
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
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
      Server started = new Server(made.channel(), exports, handshakeTimeout, memory, tls);
      server = started;
      writePid();
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

  private void writePid() throws IOException {
    if (pidFile == null) {
      return;
    }
    try {
      Files.writeString(pidFile, ProcessHandle.current().pid() + "\n");
      pidWritten = true;
    } catch (IOException failure) {
      throw new IOException("the pid file " + pidFile + " cannot be written: " + failure, failure);
    }
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

  private boolean endAll() {
    boolean well = true;
    if (command != null) {
      command.destroy();
    }
    exports.backend().stopWaiting();
    if (server != null) {
      well &= server.stop(PATIENCE);
    }
    well &= succeeds(() -> exports.backend().close());
    if (listening != null) {
      well &= succeeds(listening::close);
    }
    well &= succeeds(report::write);
    if (pidFile != null && pidWritten) {
      well &= succeeds(() -> Files.deleteIfExists(pidFile));
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
      return false;
    }
  }
}
