package nbd.cli;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import nbd.client.ClientSettings;
import nbd.client.ExportInfo;
import nbd.client.NbdClient;
import nbd.client.NbdUri;
import nbd.protocol.BaseAllocation;
import nbd.storage.Extent;
import nbd.storage.ListedExport;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.ExitCode;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** Says what an NBD server offers. */
@Command(
    name = "info",
    description = "Show what an NBD server says of an export, in the words of nbdinfo.",
    sortOptions = false,
    usageHelpAutoWidth = true)
final class Info implements Callable<Integer> {
  /** Extents asked for at a time. */
  private static final int EXTENTS = 1 << 16;

  /** The exit status that says no, as nbdinfo's. */
  private static final int NO = 2;

  private static final ClientSettings SETTINGS = ClientSettings.DEFAULT;

  @Spec private @Nullable CommandSpec spec;

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
      description =
          "Show where the export has data, and where holes and zeroes: offset, length and type of"
              + " each extent.")
  private boolean map;

  @Option(names = "--size", description = "Print only the export's size, in bytes.")
  private boolean size;

  @Option(
      names = "--can",
      paramLabel = "ABILITY",
      converter = Names.Ability.class,
      completionCandidates = Names.Ability.class,
      description =
          "Print nothing, and exit with 0 if the server or export can do this, with 2 if it cannot:"
              + " one of ${COMPLETION-CANDIDATES}.")
  private @Nullable ExportQuestion can;

  @Option(
      names = "--is",
      paramLabel = "PROPERTY",
      converter = Names.Property.class,
      completionCandidates = Names.Property.class,
      description =
          "Print nothing, and exit with 0 if the export or connection is like this, with 2 if it is"
              + " not: one of ${COMPLETION-CANDIDATES}.")
  private @Nullable ExportQuestion is;

  @Option(
      names = {"-h", "--help"},
      usageHelp = true,
      description = "Show this help and exit.")
  @SuppressWarnings("unused") // picocli acts on it
  private boolean help;

  @Override
  public Integer call() throws IOException {
    Logging.configure(false);
    List<String> modes =
        Stream.of("--list", "--map", "--size", "--can", "--is").filter(this::isGiven).toList();
    if (modes.size() > 1) {
      throw usage(modes.get(0) + " and " + modes.get(1) + " cannot be used together");
    }
    NbdUri server;
    try {
      server = NbdUri.parse(uri);
    } catch (IllegalArgumentException wrong) {
      throw usage("URI: " + wrong.getMessage());
    }
    ExportQuestion question = can == null ? is : can;
    if (question != null) {
      return answer(question, server);
    }
    if (size) {
      System.out.println(size(server));
    } else {
      System.out.print(map ? map(server) : reports(server));
    }
    System.out.flush();
    return ExitCode.OK;
  }

  /**
   * Whether the exit status is the answer to a question. Wrong usage is no answer then: it must not
   * be taken for "no", which is 2 as well.
   */
  static boolean isQuestion(String... arguments) {
    return Stream.of(arguments)
        .map(argument -> argument.split("=", 2)[0])
        .anyMatch(option -> option.equals("--can") || option.equals("--is"));
  }

  private boolean isGiven(String option) {
    return spec().commandLine().getParseResult().hasMatchedOption(option);
  }

  private static int answer(ExportQuestion question, NbdUri uri) throws IOException {
    try (NbdClient client = NbdClient.connect(uri, uri.exportName(), SETTINGS)) {
      return question.isTrue(uri, client.export()) ? ExitCode.OK : NO;
    }
  }

  private static long size(NbdUri uri) throws IOException {
    try (NbdClient client = NbdClient.connect(uri, uri.exportName(), SETTINGS)) {
      return client.export().size();
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
    try (NbdClient client = NbdClient.connect(uri, uri.exportName(), SETTINGS)) {
      ExportInfo export = client.export();
      List<String> contexts =
          export.structuredReplies()
              ? NbdClient.listContexts(uri, uri.exportName(), SETTINGS)
              : List.of();
      return new ExportReport(uri, export, contexts);
    }
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

  private String map(NbdUri server) throws IOException {
    List<Extent> extents;
    try (NbdClient client = NbdClient.connect(server, server.exportName(), SETTINGS)) {
      if (!client.export().tellsExtents()) {
        throw new IOException(
            "%s: the server does not know the metadata context \"%s\""
                .formatted(server, BaseAllocation.NAME));
      }
      extents = extents(client);
    }
    StringBuilder rows = new StringBuilder();
    long offset = 0;
    for (Extent extent : extents) {
      rows.append(rows.isEmpty() || !json ? "" : ",\n").append(row(offset, extent));
      offset += extent.length();
    }
    return json ? "[\n" + rows + "\n]\n" : rows.toString();
  }

  private static List<Extent> extents(NbdClient client) throws IOException {
    List<Extent> extents = new ArrayList<>();
    long size = client.export().size();
    for (long offset = 0; offset < size; ) {
      for (Extent extent : client.extents(offset, size - offset, EXTENTS)) {
        offset += extent.length();
        extent.appendTo(extents);
      }
    }
    return extents;
  }

  private String row(long offset, Extent extent) {
    int type = (extent.hole() ? 1 : 0) + (extent.zero() ? 2 : 0);
    String name =
        switch (type) {
          case 0 -> "data";
          case 1 -> "hole";
          case 2 -> "zero";
          default -> "hole,zero";
        };
    return json
        ? String.format(
            Locale.ROOT,
            "{ \"offset\": %d, \"length\": %d, \"type\": %d, \"description\": \"%s\"}",
            offset,
            extent.length(),
            type,
            name)
        : String.format(Locale.ROOT, "%10d  %10d  %3d  %s%n", offset, extent.length(), type, name);
  }
}
