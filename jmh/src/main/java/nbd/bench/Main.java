package nbd.bench;

import java.util.Arrays;

/**
 * Starts {@code java -jar benchmarks.jar}: {@code short [PICTURE.svg]} is the short profile,
 * anything else JMH itself.
 */
public final class Main {
  private Main() {}

  /** Runs it. */
  public static void main(String[] arguments) throws Exception {
    if (arguments.length > 0 && arguments[0].equals("short")) {
      ShortProfile.main(Arrays.copyOfRange(arguments, 1, arguments.length));
    } else {
      org.openjdk.jmh.Main.main(arguments);
    }
  }
}
