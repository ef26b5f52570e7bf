package nbd.launcher;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.jar.Attributes;
import java.util.jar.JarOutputStream;
import java.util.jar.Manifest;
import java.util.zip.ZipEntry;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * The arguments, streams, signals and status between the launcher on an old Java and the program.
 */
@Timeout(300)
final class LauncherTest {
  @TempDir private Path directory;

  private final List<Process> started = new ArrayList<>();
  private Path jar;

  @BeforeEach
  void makeAJarOfTheLauncherAndAProbe() throws IOException {
    Manifest manifest = new Manifest();
    Attributes attributes = manifest.getMainAttributes();
    attributes.put(Attributes.Name.MANIFEST_VERSION, "1.0");
    attributes.put(Attributes.Name.MAIN_CLASS, Launcher.class.getName());
    attributes.put(new Attributes.Name("Launcher-Main-Class"), LauncherProbe.class.getName());
    jar = directory.resolve("a jar with a space.jar");
    try (JarOutputStream out = new JarOutputStream(Files.newOutputStream(jar), manifest)) {
      for (Class<?> type :
          List.of(
              Launcher.class,
              Arguments.class,
              JavaFinder.class,
              SignalForwarder.class,
              LauncherProbe.class)) {
        String name = type.getName().replace('.', '/') + ".class";
        out.putNextEntry(new ZipEntry(name));
        try (var in = type.getResourceAsStream("/" + name)) {
          in.transferTo(out);
        }
      }
    }
  }

  @AfterEach
  void endWhatIsLeft() {
    started.forEach(Process::destroyForcibly);
  }

  @Test
  void theExitStatusIsTheProgramsOwn() throws Exception {
    assertThat(start("status", "0").waitFor()).isEqualTo(0);
    assertThat(start("status", "3").waitFor()).isEqualTo(3);
  }

  @Test
  void aProgramThatASignalKilledGives128AndTheSignal() throws Exception {
    Process launcher = start("wait");
    try (BufferedReader out = launcher.inputReader(UTF_8)) {
      long program = Long.parseLong(out.readLine());
      ProcessHandle.of(program).orElseThrow().destroyForcibly();
      assertThat(launcher.waitFor()).isEqualTo(128 + 9);
    }
  }

  @Test
  void argumentsAndStreamsGoThrough() throws Exception {
    Process launcher = start("echo", "two words", "");
    try (OutputStream in = launcher.getOutputStream()) {
      in.write("from standard input\n".getBytes(UTF_8));
    }
    assertThat(new String(launcher.getInputStream().readAllBytes(), UTF_8))
        .isEqualTo("[echo, two words, ]\nfrom standard input\n");
    assertThat(new String(launcher.getErrorStream().readAllBytes(), UTF_8)).contains("the end\n");
    assertThat(launcher.waitFor()).isEqualTo(0);
  }

  @Test
  void theProgramIsToldWhoLaunchedIt() throws Exception {
    Process launcher = start("property", Launcher.PID_PROPERTY);
    assertThat(launcher.inputReader(UTF_8).readLine()).isEqualTo(Long.toString(launcher.pid()));
  }

  @Test
  void optionsForTheJvmAreHandedOn() throws Exception {
    Process launcher = startWith(List.of("-Dnbd.test=a value"), "property", "nbd.test");
    assertThat(launcher.inputReader(UTF_8).readLine()).isEqualTo("a value");
  }

  @Test
  void theProgramsHeapIsCollectedByTheSerialCollector() throws Exception {
    assertThat(start("collector").inputReader(UTF_8).readLine()).isEqualTo("Copy");
  }

  @Test
  void aCollectorThatTheUserChoseIsKept() throws Exception {
    Process byOption = startWith(List.of("-XX:+UseParallelGC"), "collector");
    assertThat(byOption.inputReader(UTF_8).readLine()).startsWith("PS ");
    ProcessBuilder byVariable = OldJava.command(jar, List.of(), "collector");
    byVariable.environment().put("JAVA_TOOL_OPTIONS", "-XX:+UseParallelGC");
    assertThat(started(byVariable.start()).inputReader(UTF_8).readLine()).startsWith("PS ");
  }

  @ParameterizedTest
  @CsvSource({"HUP, 1", "INT, 2", "TERM, 15"})
  void aSignalReachesTheProgramWhichEndsInItsOwnTime(String signal, int number) throws Exception {
    Process launcher = start("stop");
    try (BufferedReader out = launcher.inputReader(UTF_8)) {
      assertThat(out.readLine()).isEqualTo("ready");
      Process kill =
          new ProcessBuilder("/bin/sh", "-c", "kill -s " + signal + " " + launcher.pid()).start();
      assertThat(kill.waitFor()).isEqualTo(0);
      assertThat(out.readLine()).isEqualTo("stopped");
      assertThat(launcher.waitFor()).isEqualTo(128 + number);
    }
  }

  @Test
  void withoutAJavaItSaysWhatIsNeededAndWhereItLooked() throws Exception {
    ProcessBuilder builder = OldJava.command(jar, List.of(), "status", "0");
    builder.environment().keySet().removeAll(List.of("JAVA_HOME", "JDK_HOME"));
    builder.environment().put("PATH", "/nonexistent");
    builder.environment().put(JavaFinder.ROOTS_VARIABLE, directory.toString());
    Process launcher = started(builder.start());
    assertThat(new String(launcher.getErrorStream().readAllBytes(), UTF_8))
        .contains("needs Java 25 or newer", "JAVA_HOME (not set)", directory.toString());
    assertThat(launcher.waitFor()).isEqualTo(Launcher.NO_JAVA);
  }

  private Process start(String... arguments) throws IOException {
    return startWith(List.of(), arguments);
  }

  private Process startWith(List<String> options, String... arguments) throws IOException {
    return started(OldJava.command(jar, options, arguments).start());
  }

  private Process started(Process process) {
    started.add(process);
    return process;
  }
}
