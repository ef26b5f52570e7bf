package nbd.cli;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.function.Predicate;
import nbd.file.LockedImages;
import nbd.posix.OtherProcess;
import nbd.server.Export;
import nbd.server.Exports;
import nbd.server.Server;
import nbd.server.TlsPolicy;
import nbd.takeover.Predecessor;
import nbd.threads.VirtualThreads;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.Spec;

/** The command {@code serve}, which serves a backend to NBD clients until a signal. */
@Command(
    name = "serve",
    description = "Serve storage to NBD clients until SIGTERM or SIGINT.",
    sortOptions = false,
    usageHelpAutoWidth = true,
    footerHeading = "%n",
    footer = {
      "SIZE is a number of bytes, or of K, M, G, T, P or E: 1024 bytes, 1024 K and so on.",
      "DURATION is a number with ms, s, m or h; without a unit, of seconds."
    })
final class Serve implements Callable<Integer> {
  /** Begins before the options are read, which takes about as long. */
  private final CompletableFuture<Void> classes = OwnClasses.load();

  @Spec private CommandSpec spec = CommandSpec.create();

  @Parameters(
      paramLabel = "BACKEND",
      arity = "0..1",
      description = {
        "The storage to serve; not needed with --export or --config:",
        "PATH or file:PATH, an image file or block device;",
        "dir:PATH, every regular file in a directory, by its name;",
        "memory:SIZE, a sparse RAM disk that all connections share;",
        "null:SIZE, which reads zeroes and forgets writes;",
        "rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT], an image of a Ceph cluster;",
        "rbd:POOL, every image of the pool, by its name;",
        "an NBD URI (nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH), another NBD"
            + " server.",
        "SIZE and DURATION are explained at the end."
      })
  private @Nullable String backend;

  @Option(
      names = {"-e", "--export-name"},
      paramLabel = "NAME",
      defaultValue = "",
      description =
          "Serve under this name (default: the empty name). More than once: several names for the"
              + " same content. Any other name is refused.")
  private List<String> exportNames = List.of("");

  @Option(
      names = "--export",
      paramLabel = "NAME=BACKEND",
      description =
          "Serve this storage under this name, too. More than once. With NAME={BACKEND OPTIONS} it"
              + " has options of its own, --description, --read-only and those of the sections from"
              + " \"Several connections\" to \"Experiments\"; the server's are the defaults. See"
              + " EXPORTS in the manual page.")
  private List<String> exportArguments = List.of();

  @Option(
      names = "--config",
      paramLabel = "FILE",
      description =
          "Serve the exports of this file, too. It is read again on SIGHUP; see EXPORTS in the"
              + " manual page.")
  private @Nullable Path config;

  @Mixin private ExportOptions own = new ExportOptions();

  @Mixin private ListenOptions listen = new ListenOptions();

  @Mixin private TlsOptions tlsOptions = new TlsOptions();

  @Option(
      names = "--max-connections",
      paramLabel = "N",
      defaultValue = "0",
      description =
          "Accept no further connection while N are there (default: 0, any number). With 1,"
              + " multi-conn is not offered.")
  private int maxConnections;

  @Option(
      names = "--handshake-timeout",
      paramLabel = "DURATION",
      defaultValue = "10s",
      description =
          "Drop a client that has not chosen an export after this long (default:"
              + " ${DEFAULT-VALUE}).")
  private Duration handshakeTimeout = Duration.ofSeconds(10);

  @Mixin private MemoryOptions memory = new MemoryOptions();

  @Option(
      names = "--run",
      paramLabel = "COMMAND",
      description =
          "Run this shell command with $uri and $unixsocket, and exit with its status when it ends."
              + " The socket is a private one (as with --unix=-), unless --unix, --port or"
              + " --address names another.")
  private @Nullable String run;

  @Option(
      names = {"-s", "--single"},
      description =
          "Serve one client on standard input and output, a socket or pipes, and exit when it"
              + " leaves.")
  private boolean single;

  @Option(
      names = "--exit-last",
      description = "Exit when the last client leaves, once one has chosen an export.")
  private boolean exitLast;

  @Option(
      names = "--exit-with-parent",
      description = "Exit in order when the process that started the server ends.")
  private boolean exitWithParent;

  @Option(
      names = {"-P", "--pid-file"},
      paramLabel = "PATH",
      description = "Write the process ID to this file when ready; it is removed at exit.")
  private @Nullable Path pidFile;

  @Mixin private ControlOptions control = new ControlOptions();

  @Option(
      names = "--stats",
      paramLabel = "FILE",
      description =
          "Write the counts of requests, from clients and to the storage, to this file at exit, as"
              + " JSON.")
  private @Nullable Path statsFile;

  @Option(
      names = {"-v", "--verbose"},
      description = "Log every connection and refused request, and failures with their stack.")
  private boolean verbose;

  @Option(
      names = {"-h", "--help"},
      usageHelp = true,
      description = "Show this help and exit.")
  @SuppressWarnings("unused") // picocli acts on it
  private boolean help;

  @Override
  public Integer call() throws IOException {
    ParseResult parsed = spec.commandLine().getParseResult();
    ExportParser parser = new ExportParser(parsed);
    List<ExportDefinition> definitions =
        exportArguments.stream().map(each -> parser.parse("--export", each)).toList();
    Optional<SocketActivation> passed = SocketActivation.of(System.getenv());
    Optional<SocketActivation> activation = passed.filter(SocketActivation::hasSockets);
    check(parsed, definitions, activation.isPresent());
    LogWriter.configure(verbose);
    Optional<OtherProcess> parent =
        exitWithParent ? Optional.of(OwnProcess.visible().parent()) : Optional.empty();
    VirtualThreads.openPollers();
    TlsPolicy tls = tlsOptions.policy();
    classes.join();
    ServiceManager manager = ServiceManager.of(System.getenv());
    Optional<Predecessor> predecessor = predecessor(manager, passed);
    try {
      return serve(parser, definitions, activation, parent, tls, manager, predecessor);
    } catch (IOException | RuntimeException | Error failure) {
      predecessor.ifPresent(other -> other.refuse(String.valueOf(failure.getMessage())));
      throw failure;
    } finally {
      if (predecessor.isPresent()) {
        predecessor.get().close();
      }
    }
  }

  /** Finds the server with whose clients this one goes on, if there is one. */
  private Optional<Predecessor> predecessor(
      ServiceManager manager, Optional<SocketActivation> passed) throws IOException {
    Optional<Predecessor> found = control.begin();
    if (found.isEmpty() && passed.isPresent()) {
      found = DescriptorStore.find(manager, passed.get().stored());
    }
    for (Predecessor other : found.stream().toList()) {
      other.handover().images().forEach(image -> LockedImages.inherit(image.handedOn()));
    }
    return found;
  }

  private int serve(
      ExportParser parser,
      List<ExportDefinition> definitions,
      Optional<SocketActivation> activation,
      Optional<OtherProcess> parent,
      TlsPolicy tls,
      ServiceManager manager,
      Optional<Predecessor> predecessor)
      throws IOException {
    boolean caches = backend != null && own.cacheBytes() > 0;
    Optional<StatisticsReport> report =
        statsFile == null ? Optional.empty() : Optional.of(StatisticsReport.to(statsFile, caches));
    Exports exports = openBackend(report);
    ExportChanges changes = new ExportChanges(exports, parser, config, limits(), report);
    startExports(exports, changes, definitions);
    Service service =
        new Service(
            classes,
            exports,
            channels -> new Server(channels, exports, handshakeTimeout, memory.bytes(), tls),
            tls.server(),
            Optional.ofNullable(pidFile).map(PidFile::new),
            report,
            manager);
    if (config != null) {
      service.reloadBy(changes::reload);
    }
    control.socket(exports, service, changes).ifPresent(service::controlBy);
    predecessor.ifPresent(service::takeOver);
    boolean runs = run != null;
    String announced = announced(exports);
    Service.Listen where =
        inherited ->
            (activation.isPresent()
                    ? activation.get().listen(announced)
                    : listen.listen(announced, runs, inherited))
                .stream().map(made -> tlsOptions.announced(made, runs)).toList();
    if (exitLast) {
      service.endAfterLastClient();
    }
    parent.ifPresent(service::endAfter);
    if (single) {
      return service.serveStandardStreams();
    }
    return run == null
        ? service.serve(where, activation.isEmpty())
        : service.serveCommand(run, where);
  }

  /** Opens BACKEND, if there is one. */
  private Exports openBackend(Optional<StatisticsReport> report) throws IOException {
    if (backend == null) {
      return new Exports(limit());
    }
    Optional<StatisticsReport> counts =
        isAlone()
            ? report
            : report.map(all -> all.part(exportNames.getFirst(), own.cacheBytes() > 0));
    FilterStack stack = own.open(backend, counts, limit());
    // Alone, clients wait in front of the server; beside others, in front of the export.
    int atMost = stack.maxConnections(0);
    Exports exports = new Exports(isAlone() && atMost > 0 ? atMost : limit());
    List<String> names = own.hasOwnNames(backend) ? List.of() : exportNames;
    exports.add(own.export(backend, stack, names, isAlone() ? 0 : atMost));
    return exports;
  }

  /** True if there is and will be no export but BACKEND. */
  private boolean isAlone() {
    return exportArguments.isEmpty() && config == null && !control.isGiven();
  }

  private static void startExports(
      Exports exports, ExportChanges changes, List<ExportDefinition> definitions)
      throws IOException {
    boolean started = false;
    try {
      changes.start(definitions);
      started = true;
    } finally {
      if (!started) {
        for (Export export : exports.stillOpen()) {
          export.close();
        }
      }
    }
  }

  /** The most clients at a time; 0 for any number. */
  private int limit() {
    return single ? 1 : maxConnections;
  }

  /** Returns the name of the export in the URI that is announced. */
  private String announced(Exports exports) {
    return backend != null
        ? exportNames.getFirst()
        : exports.all().stream().map(export -> export.names().getFirst()).findFirst().orElse("");
  }

  private ExportChanges.Limits limits() {
    long backends = backend == null ? 0 : own.cacheBytes();
    return new ExportChanges.Limits() {
      @Override
      public int maxConnections() {
        return limit();
      }

      @Override
      public void checkCaches(long bytes) {
        memory.check(bytes > Long.MAX_VALUE - backends ? Long.MAX_VALUE : bytes + backends);
      }
    };
  }

  private void check(ParseResult parsed, List<ExportDefinition> definitions, boolean isActivated) {
    UsageException.refuseIf(
        backend == null && definitions.isEmpty() && config == null,
        "BACKEND is missing, or --export or --config");
    Predicate<String> isGiven = parsed::hasMatchedOption;
    listen.check();
    List<String> listening = List.of("--port", "--address", "--unix", "--run");
    if (single) {
      UsageException.refuse(listening, isGiven, "not with --single");
      UsageException.refuse(
          List.of("--max-connections"), isGiven, "not with --single, which serves one client");
    }
    if (isActivated) {
      String reason = "not with sockets that the service manager has opened (LISTEN_FDS)";
      UsageException.refuse(listening, isGiven, reason);
      UsageException.refuse(List.of("--single"), isGiven, reason);
    }
    control.check(isGiven);
    List<String> backends = new ArrayList<>();
    definitions.forEach(definition -> backends.add(definition.backend()));
    if (backend == null) {
      UsageException.refuse(List.of("--export-name"), isGiven, "only with BACKEND");
    } else {
      backends.add(backend);
    }
    boolean mayChange = config != null || control.isGiven();
    own.check(backends, mayChange ? option -> false : isGiven);
    memory.check(backend == null ? 0 : own.cacheBytes());
    tlsOptions.check();
    if (backend != null && own.hasOwnNames(backend)) {
      UsageException.refuse(
          List.of("--export-name"),
          isGiven,
          BackendArgument.isUpstream(backend)
              ? "not with --dynamic-export, which passes every name on"
              : "not with a directory or a pool, whose files or images are the exports");
    }
    exportNames.forEach(name -> ExportOptions.checkLength("--export-name", name));
    UsageException.refuseIf(
        maxConnections < 0, "--max-connections: " + maxConnections + " is negative");
    UsageException.refuseIf(
        handshakeTimeout.isZero(), "--handshake-timeout: has to be longer than 0");
  }
}
