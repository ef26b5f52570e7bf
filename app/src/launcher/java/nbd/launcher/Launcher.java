package nbd.launcher;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.lang.reflect.InvocationTargetException;
import java.net.URISyntaxException;
import java.nio.charset.Charset;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.jar.Attributes;
import java.util.jar.Manifest;

/**
 * The jar's main class: runs the real one, which its manifest names, on a Java that is new enough.
 *
 * <p>Where that is the Java it runs on, it is one call. Else it finds a newer Java and stands in
 * for it: streams, signals and exit status go through. It is compiled for Java 8, and sparing with
 * classes (no lambdas, no {@code java.nio.file}), because what it loads delays every start.
 */
public final class Launcher {
  static final int NEEDED_JAVA = 25;

  /** Exit status when there is no Java to run on: EX_CONFIG of sysexits.h. */
  static final int NO_JAVA = 78;

  /** Exit status when the Java that was found cannot be started. */
  private static final int FAILED = 1;

  /** Tells the real program who started it, so that it can end when the launcher is killed. */
  static final String PID_PROPERTY = "nbd.launcher.pid";

  /** For the Java that is started; options given to this one follow them and win. */
  private static final String[] JVM_OPTIONS = {
    "--enable-native-access=ALL-UNNAMED", "-Xshare:auto",
  };

  private Launcher() {}

  /** Runs the main class named by the manifest's {@code Launcher-Main-Class}. */
  public static void main(String[] arguments) throws Throwable {
    String mainClass = mainClass();
    int running = JavaFinder.majorVersion(System.getProperty("java.specification.version"));
    if (running >= NEEDED_JAVA) {
      runHere(mainClass, arguments);
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
    System.exit(runThere(java, mainClass, arguments));
  }

  private static String mainClass() throws IOException {
    InputStream in = Launcher.class.getResourceAsStream("/META-INF/MANIFEST.MF");
    if (in == null) {
      throw new IOException("the jar has no manifest");
    }
    try {
      Attributes attributes = new Manifest(in).getMainAttributes();
      String name = attributes.getValue("Launcher-Main-Class");
      if (name == null) {
        throw new IOException("the jar's manifest has no Launcher-Main-Class");
      }
      return name;
    } finally {
      in.close();
    }
  }

  private static void runHere(String mainClass, String[] arguments) throws Throwable {
    try {
      Class.forName(mainClass).getMethod("main", String[].class).invoke(null, (Object) arguments);
    } catch (InvocationTargetException thrown) {
      throw thrown.getCause();
    }
  }

  private static int runThere(File java, String mainClass, String[] arguments)
      throws InterruptedException, URISyntaxException {
    List<String> command = new ArrayList<String>();
    command.add(java.getPath());
    Collections.addAll(command, JVM_OPTIONS);
    command.addAll(optionsGivenToThisJvm());
    String pid = pid();
    if (pid != null) {
      command.add("-D" + PID_PROPERTY + "=" + pid);
    }
    command.add("-cp");
    command.add(jar().getPath());
    command.add(mainClass);
    Collections.addAll(command, arguments);

    // Before there is a child, so that a signal that comes first is not lost.
    SignalForwarder signals = new SignalForwarder();
    signals.install();
    Process child;
    try {
      child = new ProcessBuilder(command).inheritIO().start();
    } catch (IOException e) {
      System.err.println("nbd-multiconn: cannot start Java: " + e.getMessage());
      return FAILED;
    }
    signals.forwardTo(child);
    return child.waitFor();
  }

  private static File jar() throws URISyntaxException {
    return new File(Launcher.class.getProtectionDomain().getCodeSource().getLocation().toURI());
  }

  /**
   * What stands between {@code java} and {@code -jar} on the command line, such as {@code -Xmx1g}.
   *
   * @return nothing where the system does not show command lines
   */
  private static List<String> optionsGivenToThisJvm() {
    List<String> options = new ArrayList<String>();
    try {
      InputStream in = new FileInputStream("/proc/self/cmdline");
      try {
        ByteArrayOutputStream word = new ByteArrayOutputStream();
        boolean executable = true;
        for (int b = in.read(); b != -1; b = in.read()) {
          if (b != 0) {
            word.write(b);
            continue;
          }
          String option = new String(word.toByteArray(), Charset.defaultCharset());
          word.reset();
          if (option.equals("-jar")) {
            return options;
          }
          if (!executable) {
            options.add(option);
          }
          executable = false;
        }
      } finally {
        in.close();
      }
    } catch (IOException e) {
      // No /proc: the options stay with this Java.
    }
    return new ArrayList<String>();
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
