package nbd.cli;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.function.Predicate;
import nbd.posix.OtherProcess;
import nbd.protocol.ExportRequest;
import nbd.server.Export;
import nbd.server.Exports;
import nbd.server.Server;
import nbd.server.TlsPolicy;
import nbd.storage.Backend;
import nbd.takeover.TakingServer;
import nbd.threads.VirtualThreads;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
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
      description = {
        "The storage to serve:",
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
  private String backend = "";

  @Option(
      names = {"-e", "--export-name"},
      paramLabel = "NAME",
      defaultValue = "",
      description =
          "Serve under this name (default: the empty name). More than once: several names for the"
              + " same content. Any other name is refused.")
  private List<String> exportNames = List.of("");

  @Option(
      names = {"-D", "--description"},
      paramLabel = "TEXT",
      defaultValue = "",
      description = "Describe the export to clients.")
  private String description = "";

  @Option(
      names = {"-r", "--read-only"},
      description = "Refuse every writing command.")
  private boolean readOnly;

  @Mixin private ListenOptions listen = new ListenOptions();

  @Mixin private MultiConnOptions multiConnOptions = new MultiConnOptions();

  @Mixin private FilterOptions filters = new FilterOptions();

  @Mixin private UpstreamOptions upstream = new UpstreamOptions();

  @Mixin private FileOptions files = new FileOptions();

  @Mixin private RbdOptions rbd = new RbdOptions();

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

  @Mixin private ExperimentOptions experiments = new ExperimentOptions();

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
    Optional<SocketActivation> activation = SocketActivation.of(System.getenv());
    check(activation.isPresent());
    LogWriter.configure(verbose);
    Optional<OtherProcess> parent =
        exitWithParent ? Optional.of(OwnProcess.visible().parent()) : Optional.empty();
    VirtualThreads.openPollers();
    TlsPolicy tls = tlsOptions.policy();
    filters.warn();
    classes.join();
    Optional<TakingServer> taking = control.begin();
    try {
      return serve(activation, parent, tls, taking);
    } catch (IOException | RuntimeException | Error failure) {
      taking.ifPresent(running -> running.refuse(String.valueOf(failure.getMessage())));
      throw failure;
    } finally {
      if (taking.isPresent()) {
        taking.get().close();
      }
    }
  }

  private int serve(
      Optional<SocketActivation> activation,
      Optional<OtherProcess> parent,
      TlsPolicy tls,
      Optional<TakingServer> taking)
      throws IOException {
    Optional<StatisticsReport> report =
        statsFile == null
            ? Optional.empty()
            : Optional.of(StatisticsReport.to(statsFile, filters.cacheBytes() > 0));
    FilterStack stack = new FilterStack(openStorage(), choice(report));
    if (!BackendArgument.isUpstream(backend) && !hasOwnNames()) {
      warnIfRefused(stack);
    }
    List<String> names = hasOwnNames() ? List.of() : exportNames;
    int atMost = stack.maxConnections(limit());
    Exports exports = new Exports(atMost);
    exports.add(
        new Export(
            stack.backend(),
            names,
            new Export.Settings(description, readOnly, 0, multiConnOptions.words())));
    Service service =
        new Service(
            classes,
            exports,
            channels -> new Server(channels, exports, handshakeTimeout, memory.bytes(), tls),
            tls.server(),
            Optional.ofNullable(pidFile).map(PidFile::new),
            report);
    control.socket(exports, service).ifPresent(service::controlBy);
    taking.ifPresent(service::takeOver);
    boolean runs = run != null;
    String name = exportNames.getFirst();
    Service.Listen where =
        inherited ->
            (activation.isPresent()
                    ? activation.get().listen(name)
                    : listen.listen(name, runs, inherited))
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

  private Backend openStorage() throws IOException {
    try {
      return BackendArgument.open(backend, files.settings(readOnly), upstream, rbd.settings());
    } catch (UsageException wrong) {
      throw new UsageException("BACKEND: " + wrong.getMessage());
    }
  }

  private FilterStack.Choice choice(Optional<StatisticsReport> report) {
    return new FilterStack.Choice(
        filters.fua(),
        multiConnOptions.settings(limit()),
        filters.cache(),
        experiments::around,
        upstream::around,
        hasOwnNames(),
        report);
  }

  /** The most clients at a time; 0 for any number. */
  private int limit() {
    return single ? 1 : maxConnections;
  }

  /** True if the storage has several exports, which it names itself. */
  private boolean hasOwnNames() {
    return upstream.dynamicExport()
        || BackendArgument.isDirectory(backend)
        || BackendArgument.isPool(backend);
  }

  /** Another server may be down now and up when a client comes; other storage can be asked. */
  private void warnIfRefused(FilterStack stack) throws IOException {
    stack
        .refusal(exportNames.getFirst(), readOnly)
        .ifPresent(reason -> Logger.warn("every client will be refused: {}", reason));
  }

  private void check(boolean isActivated) {
    Predicate<String> isGiven = spec.commandLine().getParseResult()::hasMatchedOption;
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
    filters.check(multiConnOptions.mode(), experiments.threadModel(), hasOwnNames(), isGiven);
    control.check(isGiven);
    memory.check(filters.cacheBytes());
    if (!BackendArgument.isFiles(backend)) {
      refuseMixin("files", isGiven, "only with files as BACKEND");
    }
    if (!BackendArgument.isUpstream(backend)) {
      refuseMixin("upstream", isGiven, "only with another NBD server as BACKEND");
    }
    if (!BackendArgument.isCeph(backend)) {
      refuseMixin("rbd", isGiven, "only with an image in a Ceph cluster as BACKEND");
    }
    upstream.check(isGiven);
    rbd.check();
    tlsOptions.check();
    if (hasOwnNames()) {
      UsageException.refuse(
          List.of("--export-name"),
          isGiven,
          upstream.dynamicExport()
              ? "not with --dynamic-export, which passes every name on"
              : "not with a directory or a pool, whose files or images are the exports");
    }
    exportNames.forEach(name -> checkLength("--export-name", name));
    checkLength("--description", description);
    UsageException.refuseIf(
        maxConnections < 0, "--max-connections: " + maxConnections + " is negative");
    UsageException.refuseIf(
        handshakeTimeout.isZero(), "--handshake-timeout: has to be longer than 0");
  }

  /** Refuses the options of a mixin, which has the name of its field. */
  private void refuseMixin(String name, Predicate<String> isGiven, String reason) {
    CommandSpec mixin = Objects.requireNonNull(spec.mixins().get(name));
    UsageException.refuse(mixin.optionsMap().keySet(), isGiven, reason);
  }

  private static void checkLength(String option, String text) {
    UsageException.refuseIf(
        text.getBytes(UTF_8).length > ExportRequest.MAXIMUM_NAME_BYTES,
        option
            + ": longer than "
            + ExportRequest.MAXIMUM_NAME_BYTES
            + " bytes, the most that NBD allows");
  }
}
