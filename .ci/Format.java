import com.google.googlejavaformat.java.Formatter;
import com.google.googlejavaformat.java.FormatterException;
import com.google.googlejavaformat.java.ImportOrderer;
import com.google.googlejavaformat.java.JavaFormatterOptions;
import com.google.googlejavaformat.java.RemoveUnusedImports;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;

/**
 * The build's format check, started from source. {@code check} fails if google-java-format would
 * change a Java file below the current directory; {@code replace} makes the change.
 */
final class Format {
  private Format() {}

  public static void main(String[] arguments) throws IOException {
    boolean replace = arguments[0].equals("replace");
    List<Path> sources;
    try (Stream<Path> all = Files.walk(Path.of(""))) {
      sources =
          all.filter(file -> file.toString().endsWith(".java"))
              .filter(file -> !file.toString().matches("(.*/)?target/.*"))
              .toList();
    }
    List<Path> others = sources.parallelStream().filter(file -> differs(file, replace)).toList();
    if (!replace && !others.isEmpty()) {
      System.err.println("google-java-format would change these files:");
      others.forEach(System.err::println);
      System.err.println("Format them with: mvn -q -N -Pformat verify");
      System.exit(1);
    }
  }

  private static boolean differs(Path file, boolean replace) {
    try {
      String before = Files.readString(file);
      String after = formatted(before);
      if (replace && !after.equals(before)) {
        Files.writeString(file, after);
      }
      return !after.equals(before);
    } catch (IOException | FormatterException failure) {
      System.err.println(file + ": " + failure.getMessage());
      return true;
    }
  }

  /** Formats a source as google-java-format's command does without options. */
  private static String formatted(String source) throws FormatterException {
    String ordered =
        RemoveUnusedImports.removeUnusedImports(
            ImportOrderer.reorderImports(source, JavaFormatterOptions.Style.GOOGLE));
    Formatter formatter = new Formatter();
    return com.google.googlejavaformat.java.StringWrapper.wrap(
        formatter.formatSource(ordered), formatter);
  }
}
