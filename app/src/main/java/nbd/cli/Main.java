package nbd.cli;

import java.util.List;
import java.util.Optional;
import nbd.posix.ParentProcess;
import nbd.protocol.Printable;
import nbd.threads.VirtualThreads;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.ExitCode;
import picocli.CommandLine.HelpCommand;
import picocli.CommandLine.IVersionProvider;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.UnmatchedArgumentException;

/** The program's main class, which hands over to its commands. */
@Command(
    name = "nbd-multiconn",
    description = "An NBD server that keeps the promise of multi-conn.",
    mixinStandardHelpOptions = true,
    versionProvider = Main.Version.class,
    synopsisSubcommandLabel = "COMMAND",
    exitCodeListHeading = "%nExit status:%n",
    exitCodeList = {
      "0:Success.",
      "1:Run-time error; with check: a promise is broken.",
      "2:Wrong usage; with info --can and --is: no; with check: it could not run.",
      "78:There is no Java 25 to run it with."
    })
public final class Main {
  private Main() {}

  /** The program's version, taken from the jar's manifest. */
  static final class Version implements IVersionProvider {
    @Override
    public String[] getVersion() {
      return new String[] {"nbd-multiconn " + version(), "Java " + Runtime.version()};
    }
  }

  /** Returns the program's version. */
  static String version() {
    String version = Main.class.getPackage().getImplementationVersion();
    return version == null ? "(not from its jar)" : version;
  }

  /**
   * Makes the model of the command that the arguments begin with, or else of all commands. Reading
   * the options of those that are not used would take a good part of the start.
   */
  public static CommandLine commandLine(String... arguments) {
    CommandLine line = new CommandLine(new Main());
    commands(arguments).forEach(line::addSubcommand);
    // A file may be named @disk.
    line.setExpandAtFiles(false);
    line.setUsageHelpAutoWidth(true);
    OptionValues.register(line);
    Optional.ofNullable(line.getSubcommands().get("serve")).ifPresent(OptionSections::show);
    line.setExecutionExceptionHandler(Main::report);
    line.setParameterExceptionHandler(Main::reportUsage);
    return line;
  }

  private static List<Class<?>> commands(String[] arguments) {
    String first = arguments.length == 0 ? "" : arguments[0];
    return switch (first) {
      case "serve" -> List.of(Serve.class);
      case "info" -> List.of(Info.class);
      case "check" -> List.of(Check.class);
      case "control" -> List.of(Control.class);
      default ->
          List.of(
              Serve.class,
              Info.class,
              Check.class,
              Control.class,
              HelpCommand.class,
              Completion.class);
    };
  }

  /** Prints one line that says what went wrong, and with -v the stack. */
  private static int report(Exception failure, CommandLine line, ParseResult parsed) {
    if (failure instanceof UsageException wrong) {
      return reportUsage(
          new ParameterException(line, wrong.getMessage()),
          parsed.originalArgs().toArray(String[]::new));
    }
    Failure.report(failure);
    if (parsed.subcommand() != null && parsed.subcommand().hasMatchedOption("--verbose")) {
      failure.printStackTrace();
    }
    return ExitCode.SOFTWARE;
  }

  private static int reportUsage(ParameterException wrong, String[] arguments) {
    String command = wrong.getCommandLine().getCommandSpec().qualifiedName();
    System.err.println(
        "nbd-multiconn: %s%s; see \"%s --help\""
            .formatted(Printable.line(problem(wrong)), suggestion(wrong), command));
    return Info.isQuestion(arguments) ? ExitCode.SOFTWARE : ExitCode.USAGE;
  }

  private static String problem(ParameterException wrong) {
    return wrong instanceof UnmatchedArgumentException unmatched && isCommand(unmatched)
        ? "there is no command '" + unmatched.getUnmatched().getFirst() + "'"
        : String.valueOf(wrong.getMessage()).replaceFirst("\\.$", "");
  }

  private static boolean isCommand(UnmatchedArgumentException wrong) {
    return !wrong.isUnknownOption() && !wrong.getCommandLine().getSubcommands().isEmpty();
  }

  /** Asks for the option or command that the user may have meant. */
  private static String suggestion(ParameterException wrong) {
    if (!(wrong instanceof UnmatchedArgumentException unmatched)) {
      return "";
    }
    String typed = unmatched.getUnmatched().getFirst().split("=", 2)[0];
    CommandLine command = unmatched.getCommandLine();
    return Suggestion.closest(
            typed,
            isCommand(unmatched)
                ? command.getSubcommands().keySet()
                : command.getCommandSpec().optionsMap().keySet())
        .map(meant -> "; did you mean " + meant + "?")
        .orElse("");
  }

  /** Runs a command and ends the program with its status. */
  public static void main(String[] args) {
    ExitStatus.exitAfter(
        () -> {
          OwnProcess visible = OwnProcess.visible();
          if (visible.isLauncher()) {
            // On this thread, which lives as long as the program: the kernel ties it to the thread.
            ParentProcess.endWith(visible.pid());
          }
          VirtualThreads.configure();
          return commandLine(args).execute(args);
        });
  }
}
