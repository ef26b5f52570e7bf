package nbd.cli;

import java.io.IOException;
import java.nio.file.FileSystemException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.ThreadLocalRandom;
import nbd.check.Examination;
import nbd.check.Plan;
import nbd.check.Restart;
import nbd.check.SavedHistory;
import nbd.check.Target;
import nbd.check.Verdict;
import nbd.client.ClientSettings;
import nbd.client.NbdUri;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.ExitCode;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.Spec;

/** The command {@code check}, which tells whether a server keeps the promise of multi-conn. */
@Command(
    name = "check",
    description =
        "Tell whether several connections to an NBD server are safe, and show the smallest history"
            + " found that proves they are not.",
    sortOptions = false,
    usageHelpAutoWidth = true)
final class Check implements Callable<Integer> {
  private static final int BROKEN = 1;
  private static final int MOST_CONNECTIONS = 1024;

  /** Each step more makes thirty times as many histories: 7 would take weeks. */
  private static final int MOST_STEPS = 6;

  /** The status where there is no verdict. */
  static final int NOT_RUN = 2;

  private static final ClientSettings SETTINGS =
      new ClientSettings(ClientSettings.DEFAULT.connectTimeout(), Duration.ofSeconds(30));

  @Spec private CommandSpec spec = CommandSpec.create();

  @Parameters(
      paramLabel = "URI",
      arity = "0..1",
      description =
          "The export, as nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH (with TLS:"
              + " nbds://, nbds+unix://).")
  private @Nullable String uri;

  @Option(
      names = "--overwrite",
      description = "Agree that the content is destroyed: check does not start without this.")
  private boolean overwrite;

  @Option(
      names = "--region",
      paramLabel = "OFFSET:LENGTH",
      description =
          "Overwrite only this part of the export (default: the first 64M, or all of a smaller"
              + " export).")
  private @Nullable String region;

  @Option(
      names = "--connections",
      paramLabel = "N",
      defaultValue = "4",
      description = "Use this many connections at a time (default: ${DEFAULT-VALUE}).")
  private int connections;

  @Option(
      names = "--duration",
      paramLabel = "DURATION",
      defaultValue = "10s",
      description = "Make random requests for this long (default: ${DEFAULT-VALUE}).")
  private Duration duration = Duration.ZERO;

  @Option(
      names = "--seed",
      paramLabel = "N",
      description = "Choose the requests by this number, instead of a random one.")
  private @Nullable Integer seed;

  @Option(
      names = "--exhaustive",
      paramLabel = "N",
      defaultValue = "0",
      description =
          "First run every history of up to N requests on two connections and two sectors; 4 takes"
              + " seconds, 5 a minute.")
  private int longest;

  @Option(
      names = "--restart-command",
      paramLabel = "COMMAND",
      description =
          "Restart the server by this shell command now and then, and find out whether flushed data"
              + " survives. It has to kill the server abruptly and start it again.")
  private @Nullable String restartCommand;

  @Option(
      names = "--save",
      paramLabel = "FILE",
      description = "Save the random history to this file, as JSON lines.")
  private @Nullable Path save;

  @Option(
      names = "--history",
      paramLabel = "FILE",
      description = "Judge a saved history, instead of a server; takes no URI.")
  private @Nullable Path history;

  @Option(names = "--json", description = "Print JSON.")
  private boolean json;

  @Option(
      names = {"-h", "--help"},
      usageHelp = true,
      description = "Show this help and exit.")
  @SuppressWarnings("unused") // picocli acts on it
  private boolean help;

  @Override
  public Integer call() {
    LogWriter.configure(false);
    try {
      if (history != null) {
        refuseWithHistory();
        return judge(history);
      }
      UsageException.refuseIf(uri == null, "the URI of the export is missing");
      UsageException.refuseIf(
          !overwrite, "check destroys the content of the export; agree to that by --overwrite");
      refuseOutside("--connections", connections, 1, MOST_CONNECTIONS);
      refuseOutside("--exhaustive", longest, 0, MOST_STEPS);
      UsageException.refuseIf(!duration.isPositive(), "--duration: more than 0");
      return check(
          target(server(String.valueOf(uri)), region == null ? null : Region.parse(region)));
    } catch (IOException | OutOfMemoryError failure) {
      Failure.report(failure);
      return NOT_RUN;
    }
  }

  private static void refuseOutside(String option, int value, int least, int most) {
    UsageException.refuseIf(
        value < least || value > most, "%s: from %d to %d".formatted(option, least, most));
  }

  private void refuseWithHistory() {
    ParseResult given = spec.commandLine().getParseResult();
    UsageException.refuseIf(uri != null, "--history and a URI cannot be used together");
    for (OptionSpec option : given.matchedOptions()) {
      String name = option.longestName();
      UsageException.refuseIf(
          !name.equals("--history") && !name.equals("--json"),
          "--history and " + name + " cannot be used together");
    }
  }

  private static NbdUri server(String uri) {
    try {
      return NbdUri.parse(uri);
    } catch (IllegalArgumentException wrong) {
      throw new UsageException("URI: " + wrong.getMessage());
    }
  }

  private int judge(Path file) throws IOException {
    return print(CheckReport.of(file), SavedHistory.judge(file));
  }

  /** Prints the verdict, and returns the program's status. */
  private int print(CheckReport report, Verdict verdict) {
    System.out.print(json ? report.json(verdict) : report.text(verdict));
    System.out.flush();
    return verdict.isKept() ? ExitCode.OK : BROKEN;
  }

  private static Target target(NbdUri server, @Nullable Region part) throws IOException {
    return part == null
        ? Target.open(server, SETTINGS)
        : Target.open(server, SETTINGS, part.offset, part.length);
  }

  /** The value of {@code --region}. */
  private record Region(long offset, long length) {
    static Region parse(String text) {
      String[] parts = text.split(":", -1);
      UsageException.refuseIf(
          parts.length != 2, "--region: \"" + text + "\" is not OFFSET:LENGTH, as in 1M:64M");
      try {
        return new Region(OptionValues.size(parts[0]), OptionValues.size(parts[1]));
      } catch (UsageException wrong) {
        throw new UsageException("--region: " + wrong.getMessage());
      }
    }
  }

  private int check(Target target) {
    int chosen = seed == null ? ThreadLocalRandom.current().nextInt(Integer.MAX_VALUE) : seed;
    Plan plan =
        new Plan(
            connections,
            duration,
            chosen,
            longest,
            Optional.ofNullable(restartCommand).map(Check::restart),
            Optional.ofNullable(save));
    Examination examination = new Examination(target, plan);
    RunningCheck running = RunningCheck.of(examination);
    if (!json) {
      System.out.print(CheckReport.announcement(target, plan));
      System.out.flush();
    }
    running.start();
    int status = NOT_RUN;
    try {
      status = print(CheckReport.of(target, plan), await(running, examination));
    } catch (FileSystemException unwritable) {
      Failure.report(new IOException("--save: %s: %s".formatted(save, Failure.reason(unwritable))));
    } catch (IOException | RuntimeException | OutOfMemoryError failure) {
      Failure.report(failure);
    } finally {
      running.ended(status);
    }
    return status;
  }

  private Verdict await(RunningCheck running, Examination examination) throws IOException {
    if (json) {
      return running.verdict();
    }
    try (CheckProgress _ = new CheckProgress(examination, duration)) {
      return running.verdict();
    }
  }

  /** Makes the user's command a restart; its output goes to standard error. */
  private static Restart restart(String command) {
    return () -> {
      int status = RunCommand.start("exec >&2; " + command, Map.of()).waitFor();
      if (status != 0) {
        throw new IOException("--restart-command ended with status " + status);
      }
    };
  }
}
