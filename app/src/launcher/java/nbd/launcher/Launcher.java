package nbd.launcher;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.lang.reflect.InvocationTargetException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.jar.Attributes;
import java.util.jar.Manifest;

/**
 * The jar's main class. It runs the program's main class, which the manifest names, on a Java that
 * is new enough and in a locale that has every character (see {@link Arguments}).
 *
 * <p>If this Java and this locale will do, that is a call. Otherwise the launcher starts a second
 * JVM, and passes streams, signals and the exit status through. It is compiled for Java 8, and on
 * its usual way loads few classes (no lambdas, no {@code java.nio.file}), since each delays every
 * start.
 */
public final class Launcher {
  static final int NEEDED_JAVA = 25;

  /** Exit status if there is no Java to run on: EX_CONFIG of sysexits.h. */
  static final int NO_JAVA = 78;

  /** Exit status if the program cannot be started. */
  private static final int FAILED = 1;

  private static final int WRONG_USAGE = 2;

  /** The launcher's process ID: the program ends when the launcher is killed. */
  static final String PID_PROPERTY = "nbd.launcher.pid";

  /** Options of the second JVM. The user's own follow them, and so take precedence. */
  private static final String[] JVM_OPTIONS = {
    "--enable-native-access=ALL-UNNAMED",
    "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
    "-Xshare:auto",
  };

  /**
   * Options for a small heap, unless the user chooses a collector: a JVM refuses two. Measured: as
   * quick as the JDK's usual one, since a request for cached data leaves no garbage, and a fifth
   * less memory with 10,000 connections.
   */
  static final String[] SMALL_HEAP = {"-XX:+UseSerialGC", "-XX:-ShrinkHeapInSteps", "-Xms16m"};

  /** The environment variables by which the user may give a JVM options. */
  static final String[] OPTION_VARIABLES = {
    "JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS"
  };

  private Launcher() {}

  /** Runs the main class named by the manifest's {@code Launcher-Main-Class}. */
  public static void main(String[] given) {
    try {
      launch(Arguments.restored(given));
    } catch (IllegalArgumentException wrong) {
      System.err.println("nbd-multiconn: " + wrong.getMessage());
      System.exit(WRONG_USAGE);
    } catch (Throwable failure) {
      System.err.println("nbd-multiconn: cannot be started: " + failure);
      System.exit(FAILED);
    }
  }

  private static void launch(String[] arguments) throws Throwable {
    int running = JavaFinder.majorVersion(System.getProperty("java.specification.version"));
    boolean wasChanged = System.getProperty(Arguments.LC_ALL_PROPERTY) != null;
    boolean changesLocale = Arguments.areAscii() && !wasChanged;
    if (running >= NEEDED_JAVA) {
      if (changesLocale) {
        File same = new File(System.getProperty("java.home"), "bin/java");
        System.exit(runThere(same, arguments, true));
      }
      runHere(mainClass(), arguments);
      return;
    }
    JavaFinder finder = new JavaFinder(System.getenv(), System.getProperty("user.home"));
    File java = finder.find(NEEDED_JAVA);
    if (java == null) {
      System.err.println(
          "nbd-multiconn: needs Java "
              + NEEDED_JAVA
              + " or newer, and this is Java "
              + running
              + " ("
              + System.getProperty("java.home")
              + "). Install one, or set JAVA_HOME to the directory of one. Looked in "
              + finder.whereItLooked()
              + ".");
      System.exit(NO_JAVA);
    }
    System.exit(runThere(java, arguments, changesLocale));
  }

  private static String mainClass() throws IOException {
    try (InputStream in = Launcher.class.getResourceAsStream("/META-INF/MANIFEST.MF")) {
      if (in == null) {
        throw new IOException("the jar has no manifest");
      }
      Attributes attributes = new Manifest(in).getMainAttributes();
      String name = attributes.getValue("Launcher-Main-Class");
      if (name == null) {
        throw new IOException("the jar's manifest has no Launcher-Main-Class");
      }
      return name;
    }
  }

  private static void runHere(String mainClass, String[] arguments) throws Throwable {
    try {
      Class.forName(mainClass).getMethod("main", String[].class).invoke(null, (Object) arguments);
    } catch (InvocationTargetException thrown) {
      throw thrown.getCause();
    }
  }

  private static int runThere(File java, String[] arguments, boolean changesLocale)
      throws InterruptedException, IOException {
    List<String> command = new ArrayList<>();
    command.add(java.getPath());
    Collections.addAll(command, JVM_OPTIONS);
    List<String> userOptions = Arguments.jvmOptions();
    if (!mayChooseCollector(userOptions)) {
      Collections.addAll(command, SMALL_HEAP);
    }
    command.addAll(userOptions);
    String pid = pid();
    if (pid != null) {
      command.add("-D" + PID_PROPERTY + "=" + pid);
    }
    boolean encodes = Arguments.needEncoding(arguments);
    if (encodes) {
      command.add("-D" + Arguments.ENCODED_PROPERTY + "=true");
    }
    String userLocale = System.getenv("LC_ALL");
    if (changesLocale) {
      command.add("-D" + Arguments.LC_ALL_PROPERTY + "=" + (userLocale == null ? "" : userLocale));
    }
    command.add("-cp");
    command.add(System.getProperty("java.class.path"));
    if (changesLocale) {
      refuseOutsideAscii(command);
    }
    command.add(Launcher.class.getName());
    command.addAll(encodes ? Arguments.encoded(arguments) : Arrays.asList(arguments));

    // Before the child is started, so that no signal is lost.
    SignalForwarder signals = new SignalForwarder();
    signals.install();
    ProcessBuilder builder = new ProcessBuilder(command).inheritIO();
    if (changesLocale) {
      builder.environment().put("LC_ALL", Arguments.LOCALE);
    }
    Process child;
    try {
      child = builder.start();
    } catch (IOException e) {
      System.err.println("nbd-multiconn: cannot start Java: " + e.getMessage());
      return FAILED;
    }
    signals.forwardTo(child);
    return child.waitFor();
  }

  /** Says whether the user's options name a collector, or a file that may name one. */
  private static boolean mayChooseCollector(List<String> options) {
    for (String variable : OPTION_VARIABLES) {
      if (System.getenv(variable) != null) {
        return true;
      }
    }
    for (String option : options) {
      if (option.contains("GC")
          || option.startsWith("@")
          || option.startsWith("-XX:VMOptionsFile")
          || option.startsWith("-XX:Flags")) {
        return true;
      }
    }
    return false;
  }

  /**
   * Refuses words that the JDK would garble: in place of other characters it puts question marks.
   */
  private static void refuseOutsideAscii(List<String> words) {
    for (String word : words) {
      if (!Arguments.isAscii(word)) {
        throw new IllegalArgumentException(
            "a JVM option, or the name of Java or of the jar, has characters outside ASCII; set"
                + " LC_ALL="
                + Arguments.LOCALE);
      }
    }
  }

  private static String pid() {
    try {
      // Cheaper than java.lang.management, and Java 8 has no ProcessHandle.
      return new File("/proc/self").getCanonicalFile().getName();
    } catch (IOException e) {
      return null;
    }
  }
}
