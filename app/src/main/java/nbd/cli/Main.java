package nbd.cli;

import nbd.posix.ParentProcess;
import picocli.AutoComplete.GenerateCompletion;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.ExitCode;
import picocli.CommandLine.HelpCommand;
import picocli.CommandLine.ParameterException;

/** The program: the commands below it do the work. */
@Command(
    name = "nbd-multiconn",
    description = "An NBD server that keeps the promise of multi-conn.",
    subcommands = {Serve.class, Info.class, HelpCommand.class, GenerateCompletion.class},
    mixinStandardHelpOptions = true,
    versionProvider = Version.class,
    synopsisSubcommandLabel = "COMMAND",
    exitCodeListHeading = "%nExit status:%n",
    exitCodeList = {
      "0:Success.",
      "1:It failed at run time.",
      "2:Wrong usage.",
      "78:There is no Java 25 to run it with."
    })
public final class Main {
  private Main() {}

  /** The commands' model, with how failures are reported. */
  public static CommandLine commandLine() {
    CommandLine line = new CommandLine(new Main());
    CommandLine completion = line.getSubcommands().get("generate-completion");
    if (completion != null) {
      completion.getCommandSpec().usageMessage().hidden(true);
    }
    line.setCaseInsensitiveEnumValuesAllowed(true);
    line.setUsageHelpAutoWidth(true);
    line.setExecutionExceptionHandler(Main::report);
    line.setParameterExceptionHandler(Main::reportUsage);
    return line;
  }

  /** An error is one line that says what was wrong; the stack is for -v. */
  private static int report(Exception failure, CommandLine line, CommandLine.ParseResult parsed) {
    Failure.report(failure);
    if (parsed.subcommand() != null && parsed.subcommand().hasMatchedOption("--verbose")) {
      failure.printStackTrace();
    }
    return ExitCode.SOFTWARE;
  }

  private static int reportUsage(ParameterException wrong, String[] arguments) {
    String command = wrong.getCommandLine().getCommandSpec().qualifiedName();
    System.err.println(
        "nbd-multiconn: %s; see \"%s --help\"".formatted(wrong.getMessage(), command));
    return ExitCode.USAGE;
  }

  /** Runs a command and ends the program with its status. */
  public static void main(String[] args) {
    ExitStatus.exitAfter(
        () -> {
          Long launcher = Long.getLong("nbd.launcher.pid");
          if (launcher != null) {
            // On this thread, which lives as long as the program: the kernel ties it to the thread.
            ParentProcess.endWith(launcher);
          }
          VirtualThreads.configure();
          return commandLine().execute(args);
        });
  }
}
