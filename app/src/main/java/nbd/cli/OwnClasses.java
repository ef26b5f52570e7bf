package nbd.cli;

import java.io.IOException;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.CodeSource;
import java.util.concurrent.CompletableFuture;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.regex.Pattern;

/**
 * The early loading of all classes that a server may need. From a jar that is overwritten while the
 * program runs, no more classes can be loaded; without this, the server could not even end in order
 * then.
 */
final class OwnClasses {
  private static final String SUFFIX = ".class";

  private static final Pattern UNUSED_BY_A_SERVER =
      Pattern.compile("META-INF/|nbd/check/|picocli/AutoComplete|picocli/CommandLine\\$Help");

  private OwnClasses() {}

  /** Loads the classes in a thread of its own, which logs nothing: the log has no level yet. */
  static CompletableFuture<Void> load() {
    return CompletableFuture.runAsync(
        OwnClasses::loadAll, Thread.ofPlatform().daemon().name("classes")::start);
  }

  private static void loadAll() {
    CodeSource source = OwnClasses.class.getProtectionDomain().getCodeSource();
    try {
      Path jar = Path.of(source.getLocation().toURI());
      if (Files.isRegularFile(jar)) {
        loadFrom(jar);
      }
    } catch (IOException | URISyntaxException unreadable) {
      // The classes are loaded when they are needed.
    }
  }

  private static void loadFrom(Path path) throws IOException {
    try (JarFile jar = new JarFile(path.toFile())) {
      jar.stream().map(JarEntry::getName).filter(OwnClasses::isClass).forEach(OwnClasses::load);
    }
  }

  private static boolean isClass(String entry) {
    return entry.endsWith(SUFFIX) && !UNUSED_BY_A_SERVER.matcher(entry).lookingAt();
  }

  private static void load(String entry) {
    String name = entry.substring(0, entry.length() - SUFFIX.length()).replace('/', '.');
    try {
      Class.forName(name, false, OwnClasses.class.getClassLoader());
    } catch (ClassNotFoundException | LinkageError unusable) {
      // A library's class that needs another library, which is not in the jar.
    }
  }
}
