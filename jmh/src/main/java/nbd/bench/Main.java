package nbd.bench;

import java.util.Arrays;

/**
 * What {@code java -jar benchmarks.jar} runs: {@code short DIRECTORY} the short profile, {@code
 * report RESULT.json PICTURE.svg} the table and the picture, anything else JMH itself.
 */
public final class Main {
  private Main() {}

  /** Runs it. */
  public static void main(String[] arguments) throws Exception {
    String first = arguments.length == 0 ? "" : arguments[0];
    switch (first) {
      case "short" -> ShortProfile.main(rest(arguments));
      case "report" -> Report.main(rest(arguments));
      default -> org.openjdk.jmh.Main.main(arguments);
    }
  }

  private static String[] rest(String[] arguments) {
    return Arrays.copyOfRange(arguments, 1, arguments.length);
  }
}
