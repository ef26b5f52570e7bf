package nbd.cli;

import java.util.Map;
import java.util.Optional;
import picocli.CommandLine;
import picocli.CommandLine.Help;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Model.UsageMessageSpec;

/**
 * The headings of the options of serve, in its help and in the manual page. Options are shown in
 * the order of their declaration; a section ends where the next one begins.
 */
final class OptionSections {
  private static final Map<String, String> HEADING_BY_FIRST_OPTION =
      Map.of(
          "--export-name", "Export",
          "--address", "Listening",
          "--multi-conn-mode", "Several connections",
          "--fua", "FUA and cache",
          "--dynamic-export", "With another NBD server",
          "--force-share", "With files",
          "--tls", "TLS",
          "--max-connections", "Limits",
          "--connection-cache", "Experiments",
          "--run", "Running");

  private OptionSections() {}

  /** Returns the heading of the section that an option begins, if it begins one. */
  static Optional<String> heading(OptionSpec option) {
    return Optional.ofNullable(HEADING_BY_FIRST_OPTION.get(option.longestName()));
  }

  /** Makes a command's help show the headings. */
  static void show(CommandLine command) {
    command.getHelpSectionMap().put(UsageMessageSpec.SECTION_KEY_OPTION_LIST, OptionSections::text);
  }

  private static String text(Help help) {
    StringBuilder text = new StringBuilder();
    Help.Layout section = help.createDefaultLayout();
    for (OptionSpec option : help.commandSpec().options()) {
      Optional<String> heading = heading(option);
      if (heading.isPresent()) {
        text.append(section).append("%n%s:%n".formatted(heading.get()));
        section = help.createDefaultLayout();
      }
      section.addOption(option, help.parameterLabelRenderer());
    }
    return text.append(section).toString();
  }
}
