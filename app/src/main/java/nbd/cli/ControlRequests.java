package nbd.cli;

import java.io.IOException;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.time.temporal.ChronoUnit;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import nbd.control.Answer;
import nbd.control.Handler;
import nbd.protocol.Printable;
import nbd.server.ConnectionState;
import nbd.server.Export;
import nbd.server.ExportState;
import nbd.server.Exports;
import nbd.takeover.GivingServer;
import org.tinylog.Logger;
import picocli.CommandLine.ExitCode;

/** The requests that the control socket of {@code serve} answers. */
final class ControlRequests {
  private static final String JSON = "--json";

  private static final DateTimeFormatter TIME =
      DateTimeFormatter.ofPattern("uuuu-MM-dd HH:mm:ssxxx").withZone(ZoneId.systemDefault());

  private final Exports exports;
  private final Service service;
  private final ExportChanges changes;

  private ControlRequests(Exports exports, Service service, ExportChanges changes) {
    this.exports = exports;
    this.service = service;
    this.changes = changes;
  }

  /**
   * Makes the handlers of all requests, by their names.
   *
   * @param takeOverTimeout the time that a server which takes over has until it is ready
   */
  static Map<String, Handler> of(
      Exports exports, Service service, ExportChanges changes, Duration takeOverTimeout) {
    ControlRequests requests = new ControlRequests(exports, service, changes);
    Map<String, Handler> handlers = new LinkedHashMap<>();
    handlers.put("exports", Handler.of(requests::exports));
    handlers.put("connections", Handler.of(requests::connections));
    handlers.put("drain", Handler.of(requests::drain));
    handlers.put("resume", Handler.of(requests::resume));
    handlers.put("remove", Handler.of(requests::remove));
    handlers.put("add", Handler.of(requests::add));
    handlers.put("reload", Handler.of(requests::reload));
    handlers.put("stop", requests::stop);
    GivingServer giving = new GivingServer(service, takeOverTimeout);
    handlers.put(
        GivingServer.REQUEST,
        (version, channel) -> {
          Answer.ok(channel, "");
          giving.give(channel, version);
        });
    return handlers;
  }

  /** Reads the arguments of a request that has none but {@code --json}. */
  private static boolean isJson(List<String> arguments) {
    if (arguments.isEmpty() || arguments.equals(List.of(JSON))) {
      return !arguments.isEmpty();
    }
    throw new IllegalArgumentException("\"" + arguments.getFirst() + "\" is too much");
  }

  private String exports(List<String> arguments) {
    List<ExportState> states = exports.all().stream().map(Export::state).toList();
    return isJson(arguments) ? exportsJson(states) : exportsText(states);
  }

  private static String exportsText(List<ExportState> states) {
    TextTable table =
        new TextTable("EXPORT", "STATE", "CONNECTIONS", "SIZE", "ACCESS", "MODE", "BACKEND");
    for (ExportState state : states) {
      table.add(
          state.names().isEmpty()
              ? "(names of its own)"
              : state.names().stream().map(ControlRequests::shown).collect(Collectors.joining(",")),
          state.serving() ? "serving" : "drained",
          "" + state.connections(),
          state.size().isPresent() ? ExportReport.humanSize(state.size().getAsLong()) : "-",
          state.readOnly() ? "read-only" : "writable",
          state.mode(),
          Printable.line(state.backend()));
    }
    return table.text();
  }

  /** Quotes a name if a reader could not see where it begins and ends. */
  private static String shown(String name) {
    String printable = Printable.line(name);
    return printable.isEmpty() || printable.contains(" ") || printable.contains(",")
        ? '"' + printable + '"'
        : printable;
  }

  private static String exportsJson(List<ExportState> states) {
    return json(
        "exports",
        states.stream()
            .map(
                state ->
                    "{\"names\": [%s], \"state\": \"%s\", \"connections\": %d, \"size\": %s,"
                            .formatted(
                                state.names().stream()
                                    .map(ExportReport::quoted)
                                    .collect(Collectors.joining(", ")),
                                state.serving() ? "serving" : "drained",
                                state.connections(),
                                state.size().isPresent() ? "" + state.size().getAsLong() : "null")
                        + " \"read_only\": %s, \"mode\": \"%s\", \"backend\": %s}"
                            .formatted(
                                state.readOnly(),
                                state.mode(),
                                ExportReport.quoted(state.backend())))
            .toList());
  }

  private static String json(String name, List<String> objects) {
    return "{\n\"" + name + "\": [\n" + String.join(",\n", objects) + "\n]\n}\n";
  }

  private String connections(List<String> arguments) {
    boolean json = isJson(arguments);
    List<ConnectionState> states = service.connections();
    return json ? connectionsJson(states) : connectionsText(states);
  }

  private static String connectionsText(List<ConnectionState> states) {
    TextTable table =
        new TextTable("NUMBER", "STATE", "EXPORT", "REQUESTS", "BYTES", "SINCE", "CLIENT");
    for (ConnectionState state : states) {
      table.add(
          "" + state.number(),
          state.export().isPresent() ? "serving" : "handshake",
          state.export().map(ControlRequests::shown).orElse("-"),
          "" + state.requests(),
          "" + state.bytes(),
          TIME.format(state.since()),
          Printable.line(state.peer()));
    }
    return table.text();
  }

  private static String connectionsJson(List<ConnectionState> states) {
    return json(
        "connections",
        states.stream()
            .map(
                state ->
                    "{\"number\": %d, \"state\": \"%s\", \"export\": %s, \"since\": \"%s\","
                            .formatted(
                                state.number(),
                                state.export().isPresent() ? "serving" : "handshake",
                                state.export().map(ExportReport::quoted).orElse("null"),
                                utc(state.since()))
                        + " \"requests\": %d, \"bytes\": %d, \"client\": %s}"
                            .formatted(
                                state.requests(), state.bytes(), ExportReport.quoted(state.peer())))
            .toList());
  }

  private static String utc(Instant time) {
    return time.truncatedTo(ChronoUnit.SECONDS).toString();
  }

  private String drain(List<String> arguments) throws IOException {
    Export export = named(arguments);
    Logger.info("export {} is drained on a request", export.words());
    if (!export.drain(Service.PATIENCE)) {
      throw new IOException(
          "its storage still works on a client's request; new clients are refused all the same");
    }
    return "";
  }

  private String resume(List<String> arguments) throws IOException {
    Export export = named(arguments);
    export.resume();
    Logger.info("export {} is served again on a request", export.words());
    return "";
  }

  private String remove(List<String> arguments) throws IOException {
    Export export = named(arguments);
    Logger.info("export {} is removed on a request", export.words());
    if (!exports.remove(Set.of(export), Service.PATIENCE)) {
      throw new IOException("it is removed, but its storage is not closed well; the log says why");
    }
    return "";
  }

  private String add(List<String> arguments) throws IOException {
    if (arguments.size() != 1) {
      throw new IllegalArgumentException("one NAME=BACKEND is needed");
    }
    try {
      changes.add(arguments.getFirst());
      return "";
    } catch (UsageException wrong) {
      throw new IOException(wrong.getMessage(), wrong);
    }
  }

  private String reload(List<String> arguments) throws IOException {
    if (!arguments.isEmpty()) {
      throw new IllegalArgumentException("\"" + arguments.getFirst() + "\" is too much");
    }
    return service.reload("reload on a request");
  }

  private Export named(List<String> arguments) throws IOException {
    if (arguments.size() != 1) {
      throw new IllegalArgumentException("one name of an export is needed");
    }
    String name = arguments.getFirst();
    return exports
        .find(name)
        .orElseThrow(() -> new IOException("there is no export \"" + Printable.name(name) + "\""));
  }

  private void stop(String arguments, SocketChannel channel) throws IOException {
    if (service.end("stopping on a request") == ExitCode.OK) {
      Answer.ok(channel, "");
    } else {
      Answer.refused(channel, "it has stopped, but not well; its log says why");
    }
  }
}
