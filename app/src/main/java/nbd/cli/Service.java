package nbd.cli;

import static java.util.stream.Collectors.joining;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Function;
import nbd.file.LockedImages;
import nbd.posix.AdoptedSocket;
import nbd.posix.Descriptor;
import nbd.posix.OtherProcess;
import nbd.posix.PosixException;
import nbd.protocol.Printable;
import nbd.server.ConnectionState;
import nbd.server.Export;
import nbd.server.Exports;
import nbd.server.ListeningSocket;
import nbd.server.Server;
import nbd.takeover.GivingServer;
import nbd.takeover.Handover;
import nbd.takeover.Predecessor;
import nbd.tls.CertificateFileException;
import nbd.tls.TlsServer;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;
import picocli.CommandLine.ExitCode;

/**
 * The life of a server: it makes the sockets and the pid file, perhaps starts a command that uses
 * the server, and on a signal ends all of these in order.
 */
final class Service implements GivingServer.Giver {
  /** The time that clients have to take their last replies, and the command has to clean up. */
  static final Duration PATIENCE = Duration.ofSeconds(10);

  /** The time that clients have to come to the end of a request, before the service ends. */
  private static final Duration PAUSE_PATIENCE = Duration.ofSeconds(5);

  private final Exports exports;
  private final Function<List<ListeningSocket>, Server> makeServer;
  private final List<Reload> reloads = new ArrayList<>();
  private final Optional<PidFile> pidFile;
  private final Optional<StatisticsReport> report;
  private final CompletableFuture<Void> classes;
  private final ServiceManager manager;

  /** Guards the fields below. A signal may end the service before all of it has started. */
  private final ReentrantLock lock = new ReentrantLock();

  private Optional<ControlSocket> control = Optional.empty();
  private Optional<Predecessor> predecessor = Optional.empty();
  private boolean handedOver;
  private boolean taken;
  private List<Listening> listening = List.of();
  private @Nullable Server server;
  private @Nullable RunCommand command;
  private @Nullable SingleClient singleClient;
  private boolean endsAfterLastClient;
  private boolean ended;
  private int endStatus;

  /**
   * Creates a service.
   *
   * @param classes complete when the classes that a server needs are loaded
   */
  Service(
      CompletableFuture<Void> classes,
      Exports exports,
      Function<List<ListeningSocket>, Server> makeServer,
      Optional<TlsServer> tls,
      Optional<PidFile> pidFile,
      Optional<StatisticsReport> report,
      ServiceManager manager) {
    // The logger looks for its parts in the jar when it is first used.
    this.classes = classes.thenRun(Logger::isDebugEnabled);
    this.exports = exports;
    this.makeServer = makeServer;
    tls.ifPresent(certificates -> reloads.add(() -> reloadCertificates(certificates)));
    this.pidFile = pidFile;
    this.report = report;
    this.manager = manager;
  }

  /** Adds a control socket, before the service starts. */
  void controlBy(ControlSocket socket) {
    control = Optional.of(socket);
  }

  /** Lets the service go on with another server's clients. */
  void takeOver(Predecessor other) {
    predecessor = Optional.of(other);
  }

  /** Describes the clients that are connected. */
  List<ConnectionState> connections() {
    lock.lock();
    try {
      return server == null ? List.of() : server.connectionStates();
    } finally {
      lock.unlock();
    }
  }

  /** Makes the listening sockets. */
  @FunctionalInterface
  interface Listen {
    List<Listening> now(InheritedSockets inherited) throws IOException;
  }

  /**
   * Serves until a signal.
   *
   * @param announce whether to print the ready lines: where a client started the server, standard
   *     output is the client's
   * @return the exit status
   * @throws IOException if it could not start; the message is for the user
   */
  int serve(Listen listen, boolean announce) throws IOException {
    ExitStatus.onSignal(this::endOnSignal);
    try {
      Server started = start(listen, announce);
      if (started != null) {
        started.serve();
      }
    } finally {
      endAndAnswer();
    }
    return end();
  }

  /**
   * Serves the client on standard input and output until it leaves, or a signal.
   *
   * @return the exit status
   * @throws IOException if it could not start; the message is for the user
   */
  int serveStandardStreams() throws IOException {
    ExitStatus.onSignal(this::endOnSignal);
    try {
      Server started = start(_ -> List.of(), false);
      SingleClient client = connectSingleClient();
      if (started != null && client != null) {
        started.serveClient(client.channel());
      }
    } finally {
      end();
    }
    return end();
  }

  /** Takes the client over, unless a signal has come before. */
  private @Nullable SingleClient connectSingleClient() throws IOException {
    lock.lock();
    try {
      if (!ended) {
        singleClient = SingleClient.connect();
      }
      return singleClient;
    } finally {
      lock.unlock();
    }
  }

  /** Ends the service as a signal does when the last client has left. */
  void endAfterLastClient() {
    endsAfterLastClient = true;
  }

  /**
   * Ends the service as a signal does when a process ends.
   *
   * @param parent waited for by a thread of its own
   */
  void endAfter(OtherProcess parent) {
    Thread.ofPlatform()
        .daemon()
        .name("parent")
        .start(
            () -> {
              try (parent) {
                parent.awaitEnd();
                end("stopping, since the parent process has ended");
              } catch (PosixException failure) {
                Logger.error("the parent's end will not be noticed: {}", failure.getMessage());
              }
            });
  }

  /**
   * Serves while a command of the shell runs. A signal ends the command, then the server; the
   * process ends with the signal's status, 128 and its number.
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
      endAndAnswer();
    }
  }

  /** Starts the command, unless a signal has come before. */
  private @Nullable RunCommand run(String shellCommand) throws IOException {
    lock.lock();
    try {
      if (ended) {
        return null;
      }
      String socket =
          listening.stream()
              .flatMap(one -> one.socket().stream())
              .findFirst()
              .map(path -> path.toAbsolutePath().toString())
              .orElse("");
      String uri = listening.getFirst().uri().toString();
      command = RunCommand.start(shellCommand, Map.of("uri", uri, "unixsocket", socket));
      return command;
    } finally {
      lock.unlock();
    }
  }

  /**
   * Starts, unless a signal has come before.
   *
   * @param announce whether to print the ready lines; with a command, standard output is the
   *     command's
   */
  private @Nullable Server start(Listen listen, boolean announce) throws IOException {
    lock.lock();
    try {
      if (ended) {
        return null;
      }
      if (!reloads.isEmpty()) {
        HangUp.onSignal(this::reloadOnHangUp);
      }
      InheritedSockets inherited =
          predecessor
              .map(other -> new InheritedSockets(other.handover().listeners()))
              .orElseGet(InheritedSockets::none);
      listening = listen.now(inherited);
      classes.join();
      Server started = makeServer.apply(listening.stream().map(Listening::listener).toList());
      server = started;
      if (endsAfterLastClient) {
        started.whenLastLeaves(
            () -> Thread.ofPlatform().name("last client").start(this::endAfterLast));
      }
      int adopted = predecessor.isPresent() ? adoptClients(started, predecessor.get()) : 0;
      if (control.isPresent()) {
        control.get().open(inherited);
      }
      if (predecessor.isPresent()) {
        predecessor.get().take();
        taken = true;
        predecessor.get().close();
        LockedImages.forget();
        Logger.info(
            "took over from nbd-multiconn {}, connections: {}",
            predecessor.get().handover().program(),
            adopted);
      }
      if (pidFile.isPresent()) {
        writePid(pidFile.get());
      }
      for (int i = 0; i < listening.size(); i++) {
        announce(i, announce);
      }
      System.out.flush();
      manager.ready();
      manager.watch(
          () ->
              "clients: %d now, %d since the start"
                  .formatted(started.connections(), started.accepted()),
          started::isAccepting);
      return started;
    } finally {
      lock.unlock();
    }
  }

  /** Takes another server's clients over; returns how many. */
  private static int adoptClients(Server started, Predecessor from) throws IOException {
    int adopted = 0;
    for (Server.Client client : from.handover().clients()) {
      try {
        started.adopt(client.state(), client.socket());
        adopted++;
      } catch (IOException | RuntimeException different) {
        if (from.mayGoOn()) {
          throw different;
        }
        Logger.error("a client of the server before is cut: {}", Failure.words(different));
      }
    }
    return adopted;
  }

  /**
   * Tells people of a listening socket.
   *
   * @param ready whether to print the ready line
   */
  private void announce(int index, boolean ready) {
    Listening one = listening.get(index);
    if (ready) {
      System.out.println("nbd-multiconn: ready " + one.uri());
    }
    Optional<String> only = one.listener().onlyExport();
    Logger.debug(
        "{} is served at {}{}",
        only.map(Service::quoted)
            .orElseGet(
                () ->
                    exports.all().stream()
                        .map(each -> each.state().backend())
                        .collect(joining(", "))),
        one.uri(),
        one.listener().name().map(name -> ", socket " + quoted(name)).orElse(""));
    if (only.isPresent() && !exports.mayKnow(only.get())) {
      Logger.warn(
          "socket {} of the service manager, {}: there is no export of this name",
          index + 1,
          quoted(only.get()));
    }
  }

  private static String quoted(String name) {
    return "\"" + Printable.name(name) + "\"";
  }

  /** Reads files again. */
  @FunctionalInterface
  interface Reload {
    /**
     * Reads them.
     *
     * @return what has been done, in words
     * @throws IOException if something in them is wrong; the message is for the user
     */
    String now() throws IOException;
  }

  /** Reads these files, too, when the certificates are read again. Before the service starts. */
  void reloadBy(Reload reload) {
    reloads.add(reload);
  }

  private String reloadCertificates(TlsServer server) throws IOException {
    try {
      server.reload();
      return "the certificates were read again";
    } catch (CertificateFileException unusable) {
      throw new IOException(
          "the certificates stay as they were: " + unusable.getMessage(), unusable);
    }
  }

  /**
   * Reads all files again, and logs the outcome of each.
   *
   * @param reason begins the lines in the log
   * @return what has been done, in lines
   * @throws IOException if something in them is wrong; the message is for the user
   */
  String reload(String reason) throws IOException {
    StringBuilder done = new StringBuilder();
    List<String> failures = new ArrayList<>();
    manager.reloading();
    for (Reload reload : reloads) {
      try {
        String words = reload.now();
        Logger.info("{}: {}", reason, words);
        done.append(words).append('\n');
      } catch (IOException wrong) {
        Logger.error("{}: {}", reason, wrong.getMessage());
        failures.add(String.valueOf(wrong.getMessage()));
      }
    }
    manager.ready();
    if (!failures.isEmpty()) {
      throw new IOException(String.join("; ", failures));
    }
    return done.toString();
  }

  private void reloadOnHangUp() {
    try {
      reload("SIGHUP");
    } catch (IOException wrong) {
      // It is in the log, and there is nobody else to tell.
      Logger.debug("SIGHUP: {}", wrong.getMessage());
    }
  }

  /**
   * Ends everything in order, once: the command, accepting, the requests in flight, the storage,
   * and the files.
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

  /** Ends everything, and waits until the clients of the control socket have their answers. */
  private int endAndAnswer() {
    int status = end();
    // One of them may be a server that takes over, which has to hear that there is no service.
    control.ifPresent(socket -> socket.awaitAnswers(PATIENCE));
    return status;
  }

  private int endOnSignal() {
    logEnd("stopping on a signal");
    leaveClients();
    return endAndAnswer();
  }

  private void endAfterLast() {
    end("stopping, since the last client has left");
  }

  /**
   * Logs the reason, and ends everything.
   *
   * @return the exit status
   */
  int end(String reason) {
    lock.lock();
    try {
      logEnd(reason);
      return end();
    } finally {
      lock.unlock();
    }
  }

  private void logEnd(String reason) {
    lock.lock();
    try {
      if (!ended) {
        int clients = server == null ? 0 : server.connections();
        Logger.info("{}, connections: {}", reason, clients);
      }
    } finally {
      lock.unlock();
    }
  }

  /**
   * Leaves the clients to the service's next start, if the service manager keeps them until then,
   * and ends; if the service does not start again, the service manager closes them.
   */
  private void leaveClients() {
    if (DescriptorStore.room(manager) < 1 || !isServing()) {
      return;
    }
    try {
      HandedOver paused = new HandedOver(pausable().pauseToEnd(PAUSE_PATIENCE));
      boolean left = false;
      try (Handover handover = paused.handover()) {
        DescriptorStore.leave(handover, manager);
        left = true;
        Logger.info("connections left to the next start: {}", handover.clients().size());
      } finally {
        if (!left) {
          paused.resume();
        }
      }
      paused.leave();
    } catch (IOException | RuntimeException | Error cannot) {
      if (isServing()) {
        Logger.info(
            "the connections end, and are not left to the next start: {}", Failure.words(cannot));
      }
    }
  }

  private boolean isServing() {
    lock.lock();
    try {
      return server != null && !ended;
    } finally {
      lock.unlock();
    }
  }

  @Override
  public GivingServer.Paused pause(Duration patience) throws IOException {
    HandedOver paused = new HandedOver(pausable().pause(patience));
    Logger.info("another server takes over, connections: {}", paused.clients());
    return paused;
  }

  /**
   * Returns the server, with whose clients another process can go on.
   *
   * @throws IOException if none can
   */
  private Server pausable() throws IOException {
    lock.lock();
    try {
      if (ended || server == null) {
        throw new IOException("the server is about to end");
      }
      if (command != null || singleClient != null) {
        throw new IOException(
            "the server ends with its " + (command == null ? "client" : "command"));
      }
      for (Export export : exports.all()) {
        if (export.isVolatile()) {
          throw new IOException(
              "the content of export %s is in the memory of this process"
                  .formatted(export.words()));
        }
      }
      return server;
    } finally {
      lock.unlock();
    }
  }

  /** The server while another one takes over, or is left to a later one. */
  private final class HandedOver implements GivingServer.Paused {
    private final Server.Paused paused;

    HandedOver(Server.Paused paused) {
      this.paused = paused;
    }

    int clients() {
      return paused.clients().size();
    }

    @Override
    public Handover handover() throws IOException {
      // The end closes what is copied here.
      lock.lock();
      try {
        if (ended) {
          throw new IOException("the server is about to end");
        }
        return copies();
      } finally {
        lock.unlock();
      }
    }

    private Handover copies() throws IOException {
      List<Handover.Listener> sockets = new ArrayList<>();
      List<Server.Client> clients = new ArrayList<>();
      Handover all = new Handover(Main.version(), sockets, new ArrayList<>(), clients);
      boolean whole = false;
      try {
        for (ListeningSocket.Kept each : paused.listeners()) {
          Descriptor socket = each.socket();
          String address = InheritedSockets.nameOf(AdoptedSocket.localAddress(socket.number()));
          sockets.add(new Handover.Listener(address, each.name(), socket.copy()));
        }
        if (control.isPresent()) {
          sockets.add(
              new Handover.Listener(
                  InheritedSockets.controlSocket(), Optional.empty(), control.get().listener()));
        }
        all.images().addAll(LockedImages.copies());
        for (Server.Client client : paused.clients()) {
          clients.add(new Server.Client(client.state(), client.socket().copy()));
        }
        whole = true;
        return all;
      } finally {
        if (!whole) {
          all.close();
        }
      }
    }

    @Override
    public void resume() {
      paused.resume();
    }

    @Override
    public void leave(long process) throws IOException {
      lock.lock();
      try {
        if (ended) {
          throw new IOException("the server was told to end");
        }
        handedOver = true;
        manager.replacedBy(process);
        paused.leave();
        end("another server has taken over");
      } finally {
        lock.unlock();
      }
    }

    /** Leaves the clients to a server that is not there yet, and ends. */
    void leave() {
      lock.lock();
      try {
        if (!ended) {
          paused.leave();
        }
        end();
      } finally {
        lock.unlock();
      }
    }
  }

  /** Writes the process ID; a server that has clients already does without. */
  private void writePid(PidFile file) throws IOException {
    try {
      file.write();
    } catch (IOException failure) {
      if (!taken) {
        throw failure;
      }
      Logger.error("{}", failure.getMessage());
    }
  }

  /** Says whether a listening socket is another server's, which goes on with it. */
  private boolean isOthers(boolean inherited) {
    boolean waits = predecessor.isPresent() && predecessor.get().mayGoOn() && !taken;
    return handedOver || (inherited && waits);
  }

  private boolean endAll() {
    boolean well = true;
    // The service goes on where another server has taken over, or this one has not taken over.
    if (!isOthers(true)) {
      manager.stopping();
    }
    if (command != null) {
      command.end(PATIENCE);
    }
    for (Listening one : listening) {
      // Before it is closed: afterwards another server may put its own socket there.
      if (!isOthers(one.inherited())) {
        well &= succeeds(one::removeFiles);
      }
    }
    if (control.isPresent()) {
      well &= succeeds(isOthers(true) ? control.get()::leave : control.get()::close);
    }
    exports.stopWaiting();
    if (server != null) {
      well &= server.stop(PATIENCE);
    }
    if (singleClient != null) {
      SingleClient client = singleClient;
      well &= succeeds(() -> client.finish(PATIENCE));
    }
    for (Export export : exports.stillOpen()) {
      well &= succeeds(export::close);
    }
    for (Listening one : listening) {
      well &= succeeds(one.channel()::close);
    }
    if (report.isPresent()) {
      well &= succeeds(report.get()::write);
    }
    if (pidFile.isPresent()) {
      well &= succeeds(pidFile.get()::remove);
    }
    return well;
  }

  /** Ends one thing. */
  @FunctionalInterface
  private interface Step {
    void run() throws IOException;
  }

  /** Does a step of the end. A failure is logged; the steps that follow are done all the same. */
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
