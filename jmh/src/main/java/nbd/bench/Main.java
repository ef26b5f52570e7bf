package nbd.bench;

import java.util.Arrays;

/**
 * The main class of {@code benchmarks.jar}: {@code short [PICTURE.svg]} starts the short profile,
 * all other arguments are JMH's.
 */
public final class Main {
  private Main() {}

  /** Runs the short profile or JMH. */
  public static void main(String[] arguments) throws Exception {
    if (arguments.length > 0 && arguments[0].equals("short")) {
      ShortProfile.main(Arrays.copyOfRange(arguments, 1, arguments.length));
    } else {
      org.openjdk.jmh.Main.main(arguments);
    }
  }
}
