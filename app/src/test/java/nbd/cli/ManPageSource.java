package nbd.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;
import picocli.CommandLine;
import picocli.CommandLine.Model.CommandSpec;
import picocli.codegen.docgen.manpage.ManPageGenerator;

/**
 * The program by which the build writes the commands' help as AsciiDoc, for {@code
 * man/nbd-multiconn.adoc} to include, and the completion for bash.
 *
 * <p>picocli makes a page for each command; this makes a section of each page.
 */
final class ManPageSource {
  private final Path pages;

  private ManPageSource(Path pages) {
    this.pages = pages;
  }

  /**
   * Takes three paths: a directory for picocli's pages, the AsciiDoc file and the bash script to
   * write.
   */
  public static void main(String[] arguments) throws IOException {
    Path pages = Path.of(arguments[0]);
    CommandLine commands = Main.commandLine();
    ManPageGenerator.generateManPage(
        pages.toFile(), null, new boolean[0], true, commands.getCommandSpec());
    Files.writeString(Path.of(arguments[1]), new ManPageSource(pages).sections(commands));
    Files.writeString(Path.of(arguments[2]), Completion.script(commands));
  }

  private String sections(CommandLine commands) throws IOException {
    StringBuilder text = new StringBuilder("== Commands\n");
    // A command with aliases is in the map once for each of its names.
    Set<CommandLine> once = new LinkedHashSet<>(commands.getSubcommands().values());
    for (CommandLine command : once) {
      CommandSpec spec = command.getCommandSpec();
      if (!spec.usageMessage().hidden()) {
        text.append("\n=== ").append(spec.name()).append('\n');
        for (String part : List.of("synopsis", "description", "arguments", "options", "footer")) {
          for (String paragraph : paragraphs(spec, part)) {
            text.append('\n').append(paragraph).append('\n');
          }
        }
      }
    }
    return text.toString();
  }

  /** Extracts a part of a command's page, without its heading. */
  private List<String> paragraphs(CommandSpec spec, String part) throws IOException {
    String page = Files.readString(pages.resolve(spec.qualifiedName("-") + ".adoc"));
    String tag = "picocli-generated-man-section-" + part + "[]\n";
    String begin = "// tag::" + tag;
    int start = page.indexOf(begin);
    int end = page.indexOf("// end::" + tag);
    if (start < 0 || end < 0) {
      throw new IOException(spec.qualifiedName() + ": picocli wrote no " + part);
    }
    List<String> paragraphs = new ArrayList<>();
    for (String paragraph : page.substring(start + begin.length(), end).strip().split("\n\n+")) {
      section(spec, paragraph).ifPresent(paragraphs::add);
      boolean heading = paragraph.startsWith("== ");
      boolean everywhere =
          paragraph.startsWith("*-h*, *--help*::") || paragraph.startsWith("*-V*, *--version*::");
      if (heading && !paragraphs.isEmpty()) {
        // A group of options within the command: a title instead of a section.
        paragraphs.add(paragraph.replaceFirst("== ", "."));
      } else if (!heading && !everywhere && !paragraph.isBlank()) {
        paragraphs.add(
            paragraph.lines().map(ManPageSource::escape).collect(Collectors.joining("\n")));
      }
    }
    return paragraphs;
  }

  /** Finds the heading of the section that begins with the option of a paragraph. */
  private static Optional<String> section(CommandSpec spec, String paragraph) {
    String term = paragraph.lines().findFirst().orElse("");
    return spec.options().stream()
        .filter(option -> term.endsWith("::") && term.contains(option.longestName() + "*"))
        .findFirst()
        .filter(option -> spec.name().equals("serve"))
        .flatMap(OptionSections::heading)
        .map(heading -> "==== " + heading);
  }

  /**
   * Escapes a line. Two colons in its middle, as in an address, would start a list in AsciiDoc; the
   * bracket that ends a label, such as RATE[:ERRNO], would end the attributes of what follows.
   */
  private static String escape(String line) {
    String term = line.endsWith("::") ? "::" : "";
    String text = line.substring(0, line.length() - term.length());
    return text.replace("::", "{two-colons}").replace("]_", "{endsb}_") + term;
  }
}
