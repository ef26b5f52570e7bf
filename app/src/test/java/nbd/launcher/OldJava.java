package nbd.launcher;

import static org.junit.jupiter.api.Assertions.fail;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** The Java on which the launcher is tested: Maven's, if it is an old one. */
final class OldJava {
  private OldJava() {}

  /** Makes a command that runs the jar on it, with the test's own Java as JAVA_HOME. */
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
