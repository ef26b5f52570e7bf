package nbd.cli;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import nbd.control.Words;
import nbd.protocol.Printable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.UnmatchedArgumentException;

/**
 * The reading of exports' definitions: a backend, and options that are parsed as those of serve
 * are. An option that an export does not have of its own is taken from serve.
 */
final class ExportParser {
  private final List<OptionSpec> given;
  private final Set<String> serversOptions;

  /** A definition's words, as a command. */
  @Command(name = "export")
  private static final class Definition {
    @Parameters(paramLabel = "BACKEND")
    private String backend = "";

    @Mixin private ExportOptions options = new ExportOptions();
  }

  /** Reads definitions for a server with these arguments. */
  ExportParser(ParseResult serve) {
    given = serve.matchedOptions();
    serversOptions = serve.commandSpec().optionsMap().keySet();
  }

  /**
   * Reads {@code NAME=BACKEND} or {@code NAME={BACKEND OPTIONS}}.
   *
   * @param what begins the message of an error
   * @throws UsageException if it is wrong
   */
  ExportDefinition parse(String what, String argument) {
    int end = argument.indexOf('=');
    UsageException.refuseIf(end < 0, what + " " + argument + ": write NAME=BACKEND");
    String name = argument.substring(0, end);
    String rest = argument.substring(end + 1);
    String origin = what + " " + (name.isEmpty() ? "\"\"" : Printable.name(name));
    if (!rest.startsWith("{")) {
      return parse(origin, name, List.of(rest));
    }
    UsageException.refuseIf(!rest.endsWith("}"), origin + ": the brace { is not closed");
    try {
      return parse(origin, name, Words.split(rest.substring(1, rest.length() - 1)));
    } catch (IllegalArgumentException open) {
      throw new UsageException(origin + ": " + open.getMessage());
    }
  }

  /**
   * Reads the words of a definition: the backend, and options.
   *
   * @param origin begins the message of an error
   * @throws UsageException if they are wrong
   */
  ExportDefinition parse(String origin, String name, List<String> words) {
    try {
      ExportOptions.checkLength("the name", name);
      // Its own words alone, for messages about them; then with those that it takes from serve.
      Definition own = new Definition();
      ParseResult parsed = command(own).parseArgs(words.toArray(String[]::new));
      Definition all = new Definition();
      command(all).parseArgs(withDefaults(words, parsed).toArray(String[]::new));
      all.options.check(List.of(all.backend), parsed::hasMatchedOption);
      UsageException.refuseIf(
          all.options.hasOwnNames(all.backend),
          all.backend + " names its exports itself; give it as BACKEND of the server");
      return new ExportDefinition(origin, name, all.backend, all.options, words);
    } catch (ParameterException wrong) {
      throw new UsageException(origin + ": " + problem(wrong));
    } catch (UsageException wrong) {
      throw new UsageException(origin + ": " + wrong.getMessage());
    }
  }

  /**
   * Checks one option of a definition by itself.
   *
   * @param word with its value
   * @throws UsageException if there is no such option, or it cannot have this value
   */
  void checkOption(String word) {
    try {
      command(new Definition()).parseArgs(word, "null:0");
    } catch (ParameterException wrong) {
      throw new UsageException(problem(wrong));
    }
  }

  private static CommandLine command(Definition definition) {
    CommandLine line = new CommandLine(definition);
    line.setExpandAtFiles(false);
    CommandSpec spec = line.getCommandSpec();
    for (OptionSpec option : List.copyOf(spec.options())) {
      // Every option is removed and added again, so that they keep their order. With a value, a
      // flag of serve can be taken back.
      spec.remove(option);
      spec.addOption(
          option.arity().max() == 0
              ? option.toBuilder().arity("0..1").fallbackValue("true").build()
              : option);
    }
    OptionValues.register(line);
    return line;
  }

  private List<String> withDefaults(List<String> words, ParseResult own) {
    List<String> all = new ArrayList<>();
    Map<String, OptionSpec> known = own.commandSpec().optionsMap();
    for (OptionSpec option : given) {
      String name = option.longestName();
      if (known.containsKey(name) && !own.hasMatchedOption(name)) {
        option.stringValues().forEach(value -> all.add(name + "=" + value));
      }
    }
    all.addAll(words);
    return all;
  }

  private String problem(ParameterException wrong) {
    if (!(wrong instanceof UnmatchedArgumentException unmatched)) {
      return String.valueOf(wrong.getMessage()).replaceFirst("\\.$", "");
    }
    String word = unmatched.getUnmatched().getFirst();
    String typed = word.split("=", 2)[0];
    if (serversOptions.contains(typed)) {
      return typed + ": belongs to the whole server, not to an export";
    }
    if (!word.startsWith("-")) {
      return "\"" + word + "\" is too much, behind BACKEND";
    }
    Optional<String> meant =
        Suggestion.closest(
            typed, unmatched.getCommandLine().getCommandSpec().optionsMap().keySet());
    return "there is no option " + typed + meant.map(m -> "; did you mean " + m + "?").orElse("");
  }
}
