package nbd.cli;

import java.io.IOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import nbd.control.Words;
import nbd.protocol.Printable;

/**
 * The file of {@code --config}, in the form of systemd's unit files: sections {@code [export
 * NAME]}, and in them lines {@code KEY = VALUE}. A key is the name of an option without its
 * hyphens, or {@code backend}; so a section is turned into the words of a definition, and there is
 * nothing else to be learned or to go wrong.
 */
final class ConfigFile {
  private static final Pattern SECTION = Pattern.compile("\\[\\s*(\\w+)(?:\\s+(.*?))?\\s*]");
  private static final Pattern SETTING = Pattern.compile("([A-Za-z][A-Za-z-]*)\\s*=\\s*(.*)");
  private static final String BACKEND = "backend";

  private final Path file;
  private final ExportParser parser;
  private final Map<String, Section> sections = new LinkedHashMap<>();

  private ConfigFile(Path file, ExportParser parser) {
    this.file = file;
    this.parser = parser;
  }

  /** A section that is being read. */
  private static final class Section {
    final int line;
    final List<String> backend = new ArrayList<>();
    final List<String> options = new ArrayList<>();

    Section(int line) {
      this.line = line;
    }
  }

  /**
   * Reads the file.
   *
   * @return the exports by their names, in the file's order
   * @throws UsageException if something is wrong in it; the message begins with file and line
   * @throws IOException if it cannot be read; the message is for the user
   */
  static Map<String, ExportDefinition> read(Path file, ExportParser parser) throws IOException {
    List<String> lines;
    try {
      lines = Files.readAllLines(file);
    } catch (CharacterCodingException garbage) {
      throw new IOException("--config: " + file + " is not UTF-8", garbage);
    } catch (IOException failure) {
      throw new IOException(
          "--config: %s cannot be read: %s".formatted(file, Failure.reason(failure)), failure);
    }
    return new ConfigFile(file, parser).parse(lines);
  }

  private Map<String, ExportDefinition> parse(List<String> lines) {
    Section section = null;
    for (int i = 0; i < lines.size(); i++) {
      String line = lines.get(i).strip();
      if (line.isEmpty() || line.startsWith("#") || line.startsWith(";")) {
        continue;
      }
      int number = i + 1;
      try {
        if (line.startsWith("[")) {
          section = begin(number, line);
        } else {
          if (section == null) {
            throw new UsageException("a section such as [export NAME] is missing");
          }
          set(section, line);
        }
      } catch (UsageException wrong) {
        throw new UsageException(at(number) + wrong.getMessage());
      }
    }
    Map<String, ExportDefinition> definitions = new LinkedHashMap<>();
    sections.forEach((name, each) -> definitions.put(name, definition(name, each)));
    return definitions;
  }

  private String at(int line) {
    return file + ":" + line + ": ";
  }

  private Section begin(int number, String line) {
    Matcher matcher = SECTION.matcher(line);
    UsageException.refuseIf(
        !matcher.matches() || !matcher.group(1).equals("export"),
        "\"" + Printable.name(line) + "\" is no section; write [export NAME]");
    String quoted = matcher.group(2);
    List<String> words;
    try {
      words = Words.split(quoted == null ? "" : quoted);
    } catch (IllegalArgumentException open) {
      throw new UsageException(open.getMessage());
    }
    UsageException.refuseIf(
        words.size() != 1, "one name is needed; a name with blanks, or the empty one, in quotes");
    String name = words.getFirst();
    Section before = sections.get(name);
    if (before != null) {
      throw new UsageException(
          "export \"%s\" is already in line %d".formatted(Printable.name(name), before.line));
    }
    Section section = new Section(number);
    sections.put(name, section);
    return section;
  }

  private void set(Section section, String line) {
    Matcher matcher = SETTING.matcher(line);
    UsageException.refuseIf(!matcher.matches(), "write KEY = VALUE");
    String key = matcher.group(1);
    String value = matcher.group(2);
    if (key.equals(BACKEND)) {
      UsageException.refuseIf(!section.backend.isEmpty(), "this export already has a backend");
      UsageException.refuseIf(value.isEmpty(), "the backend is missing");
      section.backend.add(value);
    } else {
      UsageException.refuseIf(
          key.length() == 1, "\"" + key + "\": write the long name of the option");
      String word = "--" + key + "=" + value;
      parser.checkOption(word);
      section.options.add(word);
    }
  }

  private ExportDefinition definition(String name, Section section) {
    UsageException.refuseIf(
        section.backend.isEmpty(),
        at(section.line) + "export \"" + Printable.name(name) + "\" has no backend");
    List<String> words = new ArrayList<>(section.options);
    // A backend that begins with a hyphen is none of the options.
    words.add("--");
    words.addAll(section.backend);
    return parser.parse(file + ":" + section.line, name, words);
  }
}
