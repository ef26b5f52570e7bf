package nbd.cli;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Stack;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import nbd.client.ClientSettings;
import nbd.client.ExportInfo;
import nbd.client.NbdClient;
import nbd.client.NbdUri;
import nbd.protocol.BaseAllocation;
import nbd.protocol.Printable;
import nbd.protocol.TransmissionFlag;
import nbd.storage.ListedExport;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.ExitCode;
import picocli.CommandLine.IParameterPreprocessor;
import picocli.CommandLine.Model.ArgSpec;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** The command {@code info}, which shows what an NBD server offers. */
@Command(
    name = "info",
    description = "Show what an NBD server says of an export, in the words of nbdinfo.",
    sortOptions = false,
    usageHelpAutoWidth = true)
final class Info implements Callable<Integer> {
  /** The exit status that means no; nbdinfo's too. */
  private static final int NO = 2;

  private static final ClientSettings SETTINGS = ClientSettings.DEFAULT;

  @Spec private CommandSpec spec = CommandSpec.create();

  @Parameters(
      paramLabel = "URI",
      description =
          "The export, as nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH (with TLS:"
              + " nbds://, nbds+unix://).")
  private String uri = "";

  @Option(names = "--json", description = "Print JSON.")
  private boolean json;

  @Option(
      names = {"-L", "--list"},
      description = "Show every export that the server lists, instead of the one of the URI.")
  private boolean list;

  @Option(
      names = "--map",
      arity = "0..1",
      paramLabel = "CONTEXT",
      fallbackValue = BaseAllocation.NAME,
      preprocessor = AttachedOnly.class,
      description =
          "Show the extents of a metadata context: offset, length and type. Without CONTEXT it is"
              + " base:allocation: data, holes and zeroes.")
  private @Nullable String map;

  @Option(names = "--size", description = "Print only the export's size, in bytes.")
  private boolean size;

  @Option(
      names = "--can",
      paramLabel = "ABILITY",
      description =
          "Print nothing, and exit with 0 if the server or export can do this, with 2 if it cannot:"
              + " one of ${COMPLETION-CANDIDATES}.")
  private @Nullable Ability can;

  @Option(
      names = "--is",
      paramLabel = "PROPERTY",
      description =
          "Print nothing, and exit with 0 if the export or connection is like this, with 2 if it is"
              + " not: one of ${COMPLETION-CANDIDATES}.")
  private @Nullable Property is;

  @Option(
      names = {"-h", "--help"},
      usageHelp = true,
      description = "Show this help and exit.")
  @SuppressWarnings("unused") // picocli acts on it
  private boolean help;

  /** Takes a value that is optional only behind an equals sign: else it is the next argument. */
  static final class AttachedOnly implements IParameterPreprocessor {
    @Override
    public boolean preprocess(
        Stack<String> arguments, CommandSpec command, ArgSpec option, Map<String, Object> info) {
      if (" ".equals(info.get("separator"))) {
        arguments.push(((OptionSpec) option).fallbackValue());
      }
      return false;
    }
  }

  /** The questions of {@code --is}; their names are nbdinfo's. */
  enum Property {
    READ_ONLY,
    ROTATIONAL,
    TLS
  }

  @Override
  public Integer call() throws IOException {
    LogWriter.configure(false);
    List<String> modes =
        Stream.of("--list", "--map", "--size", "--can", "--is")
            .filter(spec.commandLine().getParseResult()::hasMatchedOption)
            .toList();
    if (modes.size() > 1) {
      throw new UsageException(modes.get(0) + " and " + modes.get(1) + " cannot be used together");
    }
    NbdUri server;
    try {
      server = NbdUri.parse(uri);
    } catch (IllegalArgumentException wrong) {
      throw new UsageException("URI: " + wrong.getMessage());
    }
    if (list || modes.isEmpty()) {
      System.out.print(reports(server));
    } else if (map != null) {
      System.out.print(map(server, map));
    } else {
      try (NbdClient client = connect(server)) {
        if (size) {
          System.out.println(client.export().size());
        } else {
          return answer(server, client.export()) ? ExitCode.OK : NO;
        }
      }
    }
    System.out.flush();
    return ExitCode.OK;
  }

  private static NbdClient connect(NbdUri uri) throws IOException {
    return NbdClient.connect(uri, uri.exportName(), SETTINGS);
  }

  private boolean answer(NbdUri server, ExportInfo export) {
    return switch (is) {
      case null -> can != null && can.isOf(export);
      case READ_ONLY -> export.has(TransmissionFlag.READ_ONLY);
      case ROTATIONAL -> export.has(TransmissionFlag.ROTATIONAL);
      case TLS -> server.tls();
    };
  }

  /**
   * True if the exit status answers a question. Wrong usage then has status 1, since 2 would be
   * taken for the answer no.
   */
  static boolean isQuestion(String... arguments) {
    return Stream.of(arguments)
        .map(argument -> argument.split("=", 2)[0])
        .anyMatch(option -> option.equals("--can") || option.equals("--is"));
  }

  private String reports(NbdUri server) throws IOException {
    List<String> names = new ArrayList<>();
    if (list) {
      for (ListedExport listed : NbdClient.list(server, SETTINGS)) {
        names.add(listed.name());
      }
    } else {
      names.add(server.exportName());
    }
    List<ExportReport> reports = new ArrayList<>();
    for (String name : names) {
      reports.add(report(server.withExportName(name)));
    }
    return json ? json(reports) : text(reports);
  }

  private static ExportReport report(NbdUri uri) throws IOException {
    ExportInfo export;
    try (NbdClient client = connect(uri)) {
      export = client.export();
    }
    // A server that takes one client at a time may open the export again to list its contexts.
    List<String> contexts =
        export.structuredReplies()
            ? NbdClient.listContexts(uri, uri.exportName(), SETTINGS)
            : List.of();
    return new ExportReport(uri, export, contexts);
  }

  private static String text(List<ExportReport> reports) {
    String head = reports.isEmpty() ? "" : reports.getFirst().protocolLine();
    return reports.stream().map(ExportReport::text).collect(Collectors.joining("", head, ""));
  }

  private static String json(List<ExportReport> reports) {
    String head = reports.isEmpty() ? "" : reports.getFirst().jsonHead();
    return reports.stream()
        .map(ExportReport::json)
        .collect(Collectors.joining(",\n", "{\n" + head + "\"exports\": [\n", " ]\n}\n"));
  }

  private String map(NbdUri server, String context) throws IOException {
    try (NbdClient client =
        NbdClient.connect(server, server.exportName(), SETTINGS, List.of(context))) {
      if (!client.export().contexts().containsKey(context)) {
        throw new IOException(
            "%s: the server does not know the metadata context \"%s\""
                .formatted(server, Printable.name(context)));
      }
      return ContextMap.of(client, context).print(json);
    }
  }
}
