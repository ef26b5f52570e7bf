package nbd.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import picocli.CommandLine;
import picocli.CommandLine.HelpCommand;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;

/** The options that {@code --help}, the manual page and README name: they are the same. */
final class OptionNamesTest {
  /** A long option of ours, not in the middle of a word; those of the JVM have such values. */
  private static final Pattern LONG =
      Pattern.compile("(?<![\\w-])--[a-z](?:-?[a-z])*+(?!=(?:ALL-UNNAMED|java.base))");

  private static final Pattern CODE = Pattern.compile("(?s)```.*?```|`[^`]*`");

  private static Set<CommandLine> commands() {
    CommandLine main = Main.commandLine();
    Set<CommandLine> all = new LinkedHashSet<>();
    all.add(main);
    for (CommandLine command : main.getSubcommands().values()) {
      if (!command.getCommandSpec().usageMessage().hidden()) {
        all.add(command);
      }
    }
    return all;
  }

  /** Collects the options that the commands take. */
  private static Set<String> accepted() {
    Set<String> names = new TreeSet<>();
    for (CommandLine command : commands()) {
      command.getCommandSpec().optionsMap().keySet().stream()
          .filter(name -> name.startsWith("--"))
          .forEach(names::add);
    }
    return names;
  }

  private static Set<String> named(String text) {
    Set<String> names = new TreeSet<>();
    Matcher matcher = LONG.matcher(text);
    while (matcher.find()) {
      names.add(matcher.group());
    }
    return names;
  }

  @Test
  void helpNamesWhatTheCommandsTake() {
    StringBuilder help = new StringBuilder();
    for (CommandLine command : commands()) {
      help.append(command.getUsageMessage(CommandLine.Help.Ansi.OFF));
    }
    assertThat(named(help.toString())).isEqualTo(accepted());
  }

  @Test
  void everySectionOfServesOptionsHasItsHeading() {
    CommandLine serve = Main.commandLine().getSubcommands().get("serve");
    List<String> headings =
        serve.getCommandSpec().options().stream()
            .flatMap(option -> OptionSections.heading(option).stream())
            .toList();
    assertThat(headings).hasSize(10).doesNotHaveDuplicates();
    assertThat(serve.getUsageMessage(CommandLine.Help.Ansi.OFF).lines())
        .containsSubsequence(headings.stream().map(heading -> heading + ":").toList());
  }

  @Test
  void theManualPageNamesTheSame() throws IOException {
    String page = Files.readString(Path.of("../man/nbd-multiconn.1"));
    String text =
        page.replaceAll("\\\\f[BIRP]", "").replaceAll("\\\\\\(?-", "-").replace("\\-", "-");
    assertThat(named(text)).isEqualTo(accepted());
  }

  @Test
  void theManualPagesSynopsisShowsEveryOption() throws IOException {
    String page =
        Files.readString(Path.of("../man/nbd-multiconn.1"))
            .replaceAll("\\\\f[BIRP]", "")
            .replace("\\-", "-");
    for (CommandLine command : commands()) {
      CommandSpec spec = command.getCommandSpec();
      int start = page.indexOf("\n" + spec.qualifiedName() + " [");
      if (spec.parent() == null || spec.userObject() instanceof HelpCommand) {
        continue;
      }
      assertThat(start).as("the synopsis of " + spec.name()).isPositive();
      String synopsis =
          page.substring(start, page.indexOf("\n.sp", start)).replaceFirst("\\[([A-Z]+)]$", "$1");
      assertThat(synopsis).doesNotContain("] ]", "_", "I]").containsPattern("[A-Z]$");
      for (OptionSpec option : spec.options()) {
        String value = option.arity().max() == 0 ? "" : "=" + option.paramLabel();
        assertThat(Stream.of(option.names()).map(name -> name + value))
            .as("a name of %s in %s", option.longestName(), synopsis)
            .anyMatch(
                shown ->
                    synopsis.replaceAll("\\s*\\[=(.*?)\\]", "=$1").contains(shown)
                        || (shown.length() == 2
                            && clustered(synopsis).contains(shown.substring(1))));
      }
    }
  }

  /** Finds the letters of options that are shown together, as in -hv. */
  private static String clustered(String synopsis) {
    Matcher cluster = Pattern.compile("\\[-(\\w+)\\]").matcher(synopsis);
    return cluster.find() ? cluster.group(1) : "";
  }

  /**
   * README shows other programs too: only options that follow this one's name outside quotes count,
   * and options that are a piece of code by themselves.
   */
  @Test
  void readmeNamesNoOtherOptionOfOurs() throws IOException {
    Path readme = Path.of("../README.md");
    assertThat(readme).exists();
    String text = Files.readString(readme).replaceAll("\\\\\\R\\s*", " ");
    Set<String> ours = new TreeSet<>();
    Matcher code = CODE.matcher(text);
    while (code.find()) {
      for (String line : code.group().split("\\R")) {
        int start = line.indexOf("nbd-multiconn.jar");
        String word = line.replace("`", "").strip();
        if (start >= 0) {
          ours.addAll(
              named(line.substring(start).replaceAll("'[^']*'|\"[^\"]*\"", "").split("[|;&#]")[0]));
        } else if (word.startsWith("-")) {
          ours.addAll(named(word));
        }
      }
    }
    assertThat(accepted()).as("options that README mentions exist").containsAll(ours);
  }

  @Test
  void anOptionOfALaterIssueIsNotTakenYet() {
    assertThat(accepted()).doesNotContain("--metrics");
  }
}
