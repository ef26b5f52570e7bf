package nbd.cli;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import nbd.control.ControlClient;
import nbd.control.Words;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.ExitCode;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** The command {@code control}, which asks a running server for something. */
@Command(
    name = "control",
    description = "Look after a running server, by the socket of its --control.",
    sortOptions = false,
    usageHelpAutoWidth = true)
final class Control implements Callable<Integer> {
  @Parameters(index = "0", paramLabel = "SOCKET", description = "The server's socket.")
  private Path socket = Path.of("");

  @Parameters(
      index = "1",
      paramLabel = "REQUEST",
      description = {
        "exports: show what is served;",
        "connections: show who is connected;",
        "drain NAME: finish the requests to an export that were received, flush it, and refuse new"
            + " clients of it;",
        "resume NAME: serve a drained export again;",
        "remove NAME: drain an export, and close its storage;",
        "add NAME=BACKEND: serve one more export, defined as by --export;",
        "reload: read the file of --config and the certificates again, as on SIGHUP;",
        "stop: finish the requests that were received, flush, and end."
      })
  private Request request = Request.EXPORTS;

  @Parameters(
      index = "2",
      arity = "0..1",
      paramLabel = "NAME",
      description = "The name of the export; with add, its definition.")
  private @Nullable String argument;

  @Option(names = "--json", description = "With exports and connections: print JSON.")
  private boolean json;

  @Option(
      names = {"-h", "--help"},
      usageHelp = true,
      description = "Show this help and exit.")
  @SuppressWarnings("unused") // picocli acts on it
  private boolean help;

  /** The requests. */
  enum Request {
    EXPORTS,
    CONNECTIONS,
    DRAIN,
    RESUME,
    REMOVE,
    ADD,
    RELOAD,
    STOP;

    boolean hasJson() {
      return this == EXPORTS || this == CONNECTIONS;
    }

    boolean hasArgument() {
      return switch (this) {
        case DRAIN, RESUME, REMOVE, ADD -> true;
        case EXPORTS, CONNECTIONS, RELOAD, STOP -> false;
      };
    }
  }

  @Override
  public Integer call() throws IOException {
    LogWriter.configure(false);
    String name = OptionValues.nameOf(request);
    UsageException.refuseIf(
        json && !request.hasJson(), "--json: only with exports and connections");
    List<String> words = new ArrayList<>(List.of(name));
    if (argument != null) {
      UsageException.refuseIf(!request.hasArgument(), name + ": \"" + argument + "\" is too much");
      words.add(argument);
    } else {
      UsageException.refuseIf(request.hasArgument(), name + ": the name of an export is missing");
    }
    if (json) {
      words.add("--json");
    }
    try (ControlClient client = ControlClient.connect(socket)) {
      client.request(Words.join(words));
      System.out.print(client.lines());
      System.out.flush();
    } catch (IOException failure) {
      throw new IOException(socket + ": " + Failure.reason(failure), failure);
    }
    return ExitCode.OK;
  }
}
