package nbd.launcher;

import static org.junit.jupiter.api.Assertions.fail;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** The Java that the launcher is tested on: the one that Maven runs on, if it is an old one. */
final class OldJava {
  private OldJava() {}

  /** A command, not started yet, that runs the jar on it; the test's own Java is JAVA_HOME. */
  static ProcessBuilder command(Path jar, List<String> options, String... arguments) {
    boolean old = Integer.getInteger("nbd.maven.java", 0) < Launcher.NEEDED_JAVA;
    if (!old && System.getenv("NBD_REQUIRE_TOOLS") != null) {
      fail("Maven has to run on a Java before 25, for the launcher to have something to do");
    }
    assumeTrue(old, "Maven runs on a Java that the launcher has no need to replace");
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("nbd.maven.java.home"), "bin", "java").toString());
    command.addAll(options);
    command.addAll(List.of("-jar", jar.toString()));
    command.addAll(List.of(arguments));
    ProcessBuilder builder = new ProcessBuilder(command);
    builder.environment().put("JAVA_HOME", System.getProperty("java.home"));
    return builder;
  }
}
