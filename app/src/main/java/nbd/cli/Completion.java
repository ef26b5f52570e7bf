package nbd.cli;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.StringJoiner;
import java.util.concurrent.Callable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.ExitCode;
import picocli.CommandLine.Model.ArgSpec;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Model.PositionalParamSpec;
import picocli.CommandLine.Spec;

/**
 * The command that prints a script for bash, which completes this program's commands, options,
 * their values, files, and backends.
 *
 * <p>picocli has such a command, too; its script gives all options of one label the same values,
 * and completes neither {@code --option=value} nor arguments.
 */
@Command(
    name = "generate-completion",
    hidden = true,
    description = "Print a script for completion in bash: source <(... generate-completion)")
final class Completion implements Callable<Integer> {
  private static final String SCRIPT =
      """
      # Completes the command lines of nbd-multiconn in bash 4 or newer.
      #
      # For bash a word also ends at "=" and ":". So the line is split here, at blanks, and the part
      # up to the last "=" or ":" is cut off the answers again.

      _nbd_multiconn_commands="@NAMES@"

      # Words that begin with the value.
      _nbd_multiconn_words() {
        mapfile -t COMPREPLY < <(compgen -W "$1" -- "$value")
      }

      # Files (-f), directories (-d) or programs (-c) after a prefix such as "file:".
      _nbd_multiconn_files() {
        local found
        [[ $1 == -c ]] || compopt -o filenames 2> /dev/null
        mapfile -t found < <(compgen "$1" -- "${value#"$2"}")
        COMPREPLY=("${found[@]/#/"$2"}")
      }

      _nbd_multiconn_backend() {
        case $value in
          file:*) _nbd_multiconn_files -f file: ;;
          dir:*) _nbd_multiconn_files -d dir: ;;
          nbd+unix:///*socket=* | nbds+unix:///*socket=*)
            _nbd_multiconn_files -f "${value%%socket=*}socket=" ;;
          *)
            local files
            mapfile -t files < <(compgen -f -- "$value")
            _nbd_multiconn_words "@KINDS@"
            # With -o filenames, bash would escape the colons.
            [[ ${#COMPREPLY[@]} != 0 ]] || compopt -o filenames 2> /dev/null
            COMPREPLY+=("${files[@]}") ;;
        esac
      }

      _nbd_multiconn_uri() {
        case $value in
          *socket=*) _nbd_multiconn_files -f "${value%%socket=*}socket=" ;;
          *) _nbd_multiconn_words "@SCHEMES@" ;;
        esac
      }

      # Completes the value of an option; $1 is COMMAND OPTION, with "=" if the value follows that.
      # Fails if the option has no value.
      _nbd_multiconn_value() {
        case $1 in
      @VALUES@
          *) return 1 ;;
        esac
      }

      _nbd_multiconn() {
        local line=${COMP_LINE:0:COMP_POINT} current value command="" before word position=-1
        current=${line##*[[:space:]]}
        COMPREPLY=()
        read -r -a before <<< "${line%"$current"}"
        for word in "${before[@]:1}"; do
          [[ $word == -* ]] || { command=${command:-$word}; ((++position)); }
        done
        value=$current
        if [[ $command && $current == --*=* ]]; then
          value=${current#*=}
          _nbd_multiconn_value "$command ${current%%=*}="
          COMPREPLY=("${COMPREPLY[@]/#/"${current%%=*}="}")
        elif ! { [[ $command ]] && _nbd_multiconn_value "$command ${before[-1]}"; }; then
          case $command in
            "") _nbd_multiconn_words "$_nbd_multiconn_commands --help --version" ;;
      @COMMANDS@
          esac
        fi
        if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=:/] ]]; then
          compopt -o nospace 2> /dev/null
        fi
        local separators="[${COMP_WORDBREAKS//[^=:]/}]"
        if [[ $separators != "[]" && $current == *$separators* ]]; then
          COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*$separators}"}"}")
        fi
      }

      complete -F _nbd_multiconn nbd-multiconn nbd-multiconn.jar
      """;

  private static final String SCHEMES = "nbd:// nbds:// nbd+unix:/// nbds+unix:///";
  private static final String KINDS = "file: dir: memory: null: rbd: " + SCHEMES;

  @Spec private CommandSpec spec = CommandSpec.create();

  @Override
  public Integer call() {
    System.out.print(script(spec.root().commandLine()));
    System.out.flush();
    return ExitCode.OK;
  }

  /** Makes the script for these commands. */
  static String script(CommandLine commands) {
    List<String> values = new ArrayList<>();
    List<String> cases = new ArrayList<>();
    List<String> names = new ArrayList<>();
    for (Map.Entry<String, CommandLine> entry : commands.getSubcommands().entrySet()) {
      CommandSpec command = entry.getValue().getCommandSpec();
      if (!command.usageMessage().hidden()) {
        names.add(entry.getKey());
        command.options().forEach(option -> addValue(values, entry.getKey(), option));
        cases.add(entry.getKey() + ") " + words(command));
      }
    }
    return SCRIPT
        .replace("@VALUES@", indented(values))
        .replace("@COMMANDS@", indented(cases))
        .replace("@NAMES@", String.join(" ", names))
        .replace("@KINDS@", KINDS)
        .replace("@SCHEMES@", SCHEMES);
  }

  private static String indented(List<String> lines) {
    return "    " + String.join("\n    ", lines);
  }

  /** Completes options after a hyphen, else the command's arguments. */
  private static String words(CommandSpec command) {
    StringJoiner options = new StringJoiner(" ");
    for (OptionSpec option : command.options()) {
      if (option.arity().min() == 0) {
        options.add(option.longestName());
      }
      if (option.arity().max() > 0) {
        options.add(option.longestName() + "=");
      }
    }
    StringJoiner arguments = new StringJoiner(" ", "case $position in ", " esac");
    for (PositionalParamSpec argument : command.positionalParameters()) {
      boolean last = argument.equals(command.positionalParameters().getLast());
      arguments.add((last ? "*" : argument.index().toString()) + ") " + of(argument) + " ;;");
    }
    return "case $value in -*) _nbd_multiconn_words \"%s\" ;; *) %s ;; esac ;;"
        .formatted(options, arguments);
  }

  private static void addValue(List<String> values, String command, OptionSpec option) {
    if (option.arity().max() > 0) {
      StringJoiner names = new StringJoiner(" | ");
      for (String name : option.names()) {
        names.add("\"%s %s=\"".formatted(command, name));
        if (option.arity().min() > 0) {
          names.add("\"%s %s\"".formatted(command, name));
        }
      }
      values.add(names + ") " + of(option) + " ;;");
    }
  }

  /** Returns the shell command that completes a value. */
  private static String of(ArgSpec argument) {
    if (argument.completionCandidates() != null) {
      return "_nbd_multiconn_words \"" + String.join(" ", argument.completionCandidates()) + '"';
    }
    return switch (argument.paramLabel()) {
      case "BACKEND" -> "_nbd_multiconn_backend";
      case "URI" -> "_nbd_multiconn_uri";
      case "PATH", "FILE", "SOCKET" -> "_nbd_multiconn_files -f \"\"";
      case "DIR" -> "_nbd_multiconn_files -d \"\"";
      case "COMMAND" ->
          argument.isOption()
              ? "_nbd_multiconn_files -c \"\""
              : "_nbd_multiconn_words \"$_nbd_multiconn_commands\"";
      case "true|false" -> "_nbd_multiconn_words \"true false\"";
      default -> "true";
    };
  }
}
