package nbd.launcher;

import static java.nio.charset.StandardCharsets.ISO_8859_1;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/**
 * The search for a Java that is new enough.
 *
 * <p>JAVA_HOME comes first, then JDK_HOME, then the first Java on PATH, then the newest one in the
 * usual places. The file {@code release} in its directory tells a Java's version. Only if no such
 * file leads to a Java are those without the file started and asked.
 */
final class JavaFinder {
  /** Environment variable that replaces the usual places, with directories separated as in PATH. */
  static final String ROOTS_VARIABLE = "NBD_JAVA_ROOTS";

  private static final String[] HOME_VARIABLES = {"JAVA_HOME", "JDK_HOME"};

  /** Directories of Java homes; ~ is the user's home. */
  static final String[] USUAL_PLACES = {
    // Of the Debian package nbd-multiconn-jre.
    "/usr/lib/nbd-multiconn",
    "/usr/lib/jvm",
    "/usr/lib64/jvm",
    "/usr/java",
    "/usr/local",
    "/usr/local/java",
    "/opt",
    "/opt/java",
    "~/.sdkman/candidates/java",
    "~/.jdks",
    "~/.asdf/installs/java",
    "~/.local/share/mise/installs/java",
    "~/.jabba/jdk",
    "/Library/Java/JavaVirtualMachines",
    "~/Library/Java/JavaVirtualMachines",
  };

  private final Map<String, String> environment;
  private final String userHome;

  JavaFinder(Map<String, String> environment, String userHome) {
    this.environment = environment;
    this.userHome = userHome;
  }

  /** Finds the executable of a Java of at least this major version; null if there is none. */
  File find(int needed) {
    File java = find(needed, false);
    return java != null ? java : find(needed, true);
  }

  /** Lists the places, for the message that no Java was found. */
  String whereItLooked() {
    StringBuilder places = new StringBuilder();
    for (String variable : HOME_VARIABLES) {
      String value = environment.get(variable);
      places.append(variable).append(isSet(value) ? "=" + value : " (not set)").append(", ");
    }
    places.append("PATH");
    for (String root : roots()) {
      places.append(", ").append(root);
    }
    return places.toString();
  }

  private File find(int needed, boolean ask) {
    for (File java : pointedTo()) {
      if (version(java, ask) >= needed) {
        return java;
      }
    }
    File newest = null;
    int newestVersion = needed - 1;
    for (File java : inUsualPlaces()) {
      int version = version(java, ask);
      if (version > newestVersion) {
        newest = java;
        newestVersion = version;
      }
    }
    return newest;
  }

  private List<File> pointedTo() {
    List<File> found = new ArrayList<>();
    for (String variable : HOME_VARIABLES) {
      String home = environment.get(variable);
      if (isSet(home)) {
        addIfJava(found, new File(home));
      }
    }
    String path = environment.get("PATH");
    if (isSet(path)) {
      for (String directory : path.split(File.pathSeparator)) {
        File java = new File(directory, "java");
        if (!directory.isEmpty() && java.canExecute() && !java.isDirectory()) {
          found.add(resolve(java));
        }
      }
    }
    return found;
  }

  private List<File> inUsualPlaces() {
    List<File> found = new ArrayList<>();
    for (String root : roots()) {
      File[] homes = new File(root).listFiles();
      if (homes != null) {
        for (File home : homes) {
          addIfJava(found, home);
          // The layout of macOS.
          addIfJava(found, new File(home, "Contents/Home"));
        }
      }
    }
    return found;
  }

  private List<String> roots() {
    String override = environment.get(ROOTS_VARIABLE);
    if (override != null) {
      return Arrays.asList(override.split(File.pathSeparator));
    }
    List<String> roots = new ArrayList<>();
    for (String place : USUAL_PLACES) {
      roots.add(place.startsWith("~") ? userHome + place.substring(1) : place);
    }
    return roots;
  }

  private static void addIfJava(List<File> found, File home) {
    File java = new File(home, "bin/java");
    if (java.canExecute() && !java.isDirectory()) {
      found.add(java);
    }
  }

  /** Finds the major version; 0 if it is not known. */
  private static int version(File java, boolean ask) {
    int version = releasedVersion(new File(java.getParentFile().getParentFile(), "release"));
    return version == 0 && ask ? askedVersion(java) : version;
  }

  private static int releasedVersion(File release) {
    if (!release.isFile()) {
      return 0;
    }
    try {
      return versionIn(new FileInputStream(release), "JAVA_VERSION=\"");
    } catch (IOException e) {
      return 0;
    }
  }

  private static int askedVersion(File java) {
    try {
      Process process =
          new ProcessBuilder(java.getPath(), "-version").redirectErrorStream(true).start();
      process.getOutputStream().close();
      return versionIn(process.getInputStream(), " version \"");
    } catch (IOException e) {
      return 0;
    }
  }

  /** Finds the version behind the first occurrence of the words; reads and closes the stream. */
  private static int versionIn(InputStream in, String words) throws IOException {
    try (BufferedReader reader = new BufferedReader(new InputStreamReader(in, ISO_8859_1))) {
      int version = 0;
      for (String line = reader.readLine(); line != null; line = reader.readLine()) {
        int start = line.indexOf(words);
        if (start >= 0 && version == 0) {
          version = majorVersion(line.substring(start + words.length()));
        }
      }
      return version;
    }
  }

  /** Reads 25 from {@code 25.0.3} or {@code 25-ea}, 8 from {@code 1.8.0_412}, else 0. */
  static int majorVersion(String version) {
    String digits = version.startsWith("1.") ? version.substring(2) : version;
    int major = 0;
    for (int i = 0; i < digits.length() && i < 4 && isDigit(digits.charAt(i)); i++) {
      major = 10 * major + (digits.charAt(i) - '0');
    }
    return major;
  }

  private static boolean isDigit(char c) {
    return c >= '0' && c <= '9';
  }

  private static boolean isSet(String value) {
    return value != null && !value.isEmpty();
  }

  /** Follows symbolic links, such as {@code /usr/bin/java}, to the release file's directory. */
  private static File resolve(File java) {
    try {
      return java.getCanonicalFile();
    } catch (IOException e) {
      return java;
    }
  }
}
