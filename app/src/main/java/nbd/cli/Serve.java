package nbd.cli;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.stream.Stream;
import nbd.protocol.ExportRequest;
import nbd.server.Exports;
import nbd.server.TlsPolicy;
import nbd.storage.Backend;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.Spec;

/** Serves a backend to NBD clients until it is told to stop. */
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
  @Spec private @Nullable CommandSpec spec;

  @Parameters(
      paramLabel = "BACKEND",
      description = {
        "The storage to serve:",
        "PATH or file:PATH, an image file or block device;",
        "dir:PATH, every regular file in a directory, by its name;",
        "memory:SIZE, a sparse RAM disk that all connections share;",
        "null:SIZE, which reads zeroes and forgets writes;",
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
      converter = DurationConverter.class,
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
      names = "--pid-file",
      paramLabel = "PATH",
      description = "Write the process ID to this file when ready; it is removed at exit.")
  private @Nullable Path pidFile;

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
    check();
    Logging.configure(verbose);
    VirtualThreads.openPollers();
    TlsPolicy tls = tlsOptions.policy();
    filters.warn();
    StatisticsReport.check(statsFile);
    FilterStack stack = new FilterStack(openStorage(), choice());
    if (!BackendArgument.isUpstream(backend) && !BackendArgument.isDirectory(backend)) {
      warnIfRefused(stack);
    }
    List<String> names = hasOwnNames() ? List.of() : exportNames;
    int atMost = stack.maxConnections(maxConnections);
    Exports exports = new Exports(stack.backend(), names, description, readOnly, atMost);
    StatisticsReport report =
        new StatisticsReport(
            stack.clientSide(), stack.cacheCounts(), stack.backendSide(), statsFile);
    Service service =
        new Service(
            exports,
            handshakeTimeout,
            memory.bytes(),
            tls,
            Optional.ofNullable(pidFile).map(PidFile::new),
            report);
    boolean runs = run != null;
    Service.Listen where =
        () -> tlsOptions.announced(listen.listen(exportNames.getFirst(), runs), runs);
    return run == null ? service.serve(where) : service.serveCommand(run, where);
  }

  private Backend openStorage() throws IOException {
    try {
      return BackendArgument.open(backend, files.settings(readOnly), upstream);
    } catch (IllegalArgumentException wrong) {
      throw usage("BACKEND: " + wrong.getMessage());
    }
  }

  private FilterStack.Choice choice() {
    return new FilterStack.Choice(
        filters.fua(),
        multiConnOptions.settings(maxConnections),
        filters.cache(),
        experiments::around,
        upstream::around,
        hasOwnNames());
  }

  /** Whether the storage has several exports, which it names itself. */
  private boolean hasOwnNames() {
    return upstream.dynamicExport() || BackendArgument.isDirectory(backend);
  }

  /** Another server may be down now and up when a client comes; other storage can be asked. */
  private void warnIfRefused(FilterStack stack) throws IOException {
    stack
        .refusal(exportNames.getFirst(), readOnly)
        .ifPresent(reason -> Logger.warn("every client will be refused: {}", reason));
  }

  private void check() {
    ParseResult given = spec().commandLine().getParseResult();
    Stream.of(
            listen.problem(),
            filters.problem(
                multiConnOptions.mode(),
                experiments.threadModel(),
                hasOwnNames(),
                given::hasMatchedOption),
            memory.problem(filters.cacheBytes()),
            files.problem(BackendArgument.isFiles(backend), given::hasMatchedOption),
            upstream.problem(BackendArgument.isUpstream(backend), given::hasMatchedOption))
        .filter(Objects::nonNull)
        .findFirst()
        .ifPresent(
            problem -> {
              throw usage(problem);
            });
    if (upstream.dynamicExport() && given.hasMatchedOption("--export-name")) {
      throw usage("--export-name: not with --dynamic-export, which passes every name on");
    }
    tlsOptions
        .problem()
        .ifPresent(
            message -> {
              throw usage(message);
            });
    if (BackendArgument.isDirectory(backend) && given.hasMatchedOption("--export-name")) {
      throw usage("--export-name: not with a directory, whose files' names are the exports'");
    }
    Stream.concat(Stream.of(description), exportNames.stream())
        .filter(text -> text.getBytes(UTF_8).length > ExportRequest.MAXIMUM_NAME_BYTES)
        .findFirst()
        .ifPresent(
            text -> {
              throw usage(
                  "%s: longer than %d bytes, the most that NBD allows"
                      .formatted(
                          text.equals(description) ? "--description" : "--export-name",
                          ExportRequest.MAXIMUM_NAME_BYTES));
            });
    Stream.of("--unix", "--pid-file", "--stats")
        .filter(option -> given.matchedOptionValue(option, Path.of("-")).toString().isEmpty())
        .findFirst()
        .ifPresent(
            option -> {
              throw usage(option + ": the name of the file is missing");
            });
    if (maxConnections < 0) {
      throw usage("--max-connections: " + maxConnections + " is negative");
    }
    if (handshakeTimeout.isZero()) {
      throw usage("--handshake-timeout: has to be longer than 0");
    }
  }

  private ParameterException usage(String message) {
    return new ParameterException(spec().commandLine(), message);
  }

  private CommandSpec spec() {
    if (spec == null) {
      throw new IllegalStateException("not run by picocli");
    }
    return spec;
  }
}
