package nbd.launcher;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.HashMap;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The launcher's choice among Java homes that the test makes up. */
final class JavaFinderTest {
  @TempDir private Path directory;

  private final Map<String, String> environment = new HashMap<>();
  private Path jvms;

  @BeforeEach
  void lookNowhereElse() throws IOException {
    jvms = Files.createDirectory(directory.resolve("jvms"));
    environment.put(JavaFinder.ROOTS_VARIABLE, jvms.toString());
  }

  @ParameterizedTest
  @CsvSource({
    "25.0.3, 25",
    "25, 25",
    "26-ea, 26",
    "1.8.0_412, 8",
    "9.0.4, 9",
    "17, 17",
    "100.1, 100",
    "unknown, 0",
    "'', 0",
  })
  void theMajorVersionIsReadInOldAndNewForms(String version, int major) {
    assertThat(JavaFinder.majorVersion(version)).isEqualTo(major);
  }

  @Test
  void javaHomeComesFirst() throws IOException {
    home(jvms.resolve("newer"), "26");
    Path jdkHome = home(directory.resolve("jdk-home"), "25");
    Path javaHome = home(directory.resolve("java-home"), "25.0.3");
    environment.put("JAVA_HOME", javaHome.toString());
    environment.put("JDK_HOME", jdkHome.toString());
    assertThat(find()).isEqualTo(java(javaHome));
  }

  @Test
  void aJavaHomeThatIsTooOldIsPassedOver() throws IOException {
    Path javaHome = home(directory.resolve("java-home"), "17.0.15");
    Path jdkHome = home(directory.resolve("jdk-home"), "25");
    environment.put("JAVA_HOME", javaHome.toString());
    environment.put("JDK_HOME", jdkHome.toString());
    assertThat(find()).isEqualTo(java(jdkHome));
  }

  @Test
  void theJavaOnThePathIsFollowedToItsHome() throws IOException {
    Path home = home(directory.resolve("a-jdk"), "25.0.1");
    Path bin = Files.createDirectory(directory.resolve("bin"));
    Files.createSymbolicLink(bin.resolve("java"), java(home).toPath());
    environment.put("PATH", "/nonexistent" + File.pathSeparator + File.pathSeparator + bin);
    assertThat(find().getCanonicalFile()).isEqualTo(java(home).getCanonicalFile());
  }

  @Test
  void ofTheUsualPlacesTheNewestIsTaken() throws IOException {
    home(jvms.resolve("a"), "25.0.3");
    Path newest = home(jvms.resolve("b"), "26.0.1");
    home(jvms.resolve("c"), "17");
    Files.createDirectory(jvms.resolve("no-java"));
    assertThat(find()).isEqualTo(java(newest));
  }

  @Test
  void aHomeThatMacOsWrapsIsFound() throws IOException {
    Path home = home(jvms.resolve("temurin-25.jdk/Contents/Home"), "25");
    assertThat(find()).isEqualTo(java(home));
  }

  @Test
  void aJavaWithoutAReleaseFileIsAsked() throws IOException {
    Path home = jvms.resolve("quiet");
    program(home, "echo Picked up JAVA_TOOL_OPTIONS: -Da=b >&2; echo 'openjdk version \"25\"' >&2");
    assertThat(find()).isEqualTo(java(home));
  }

  @Test
  void noJavaIsStartedAsLongAsAReleaseFileTells() throws IOException {
    Path asked = directory.resolve("asked");
    program(jvms.resolve("quiet"), "touch " + asked);
    home(jvms.resolve("known"), "25");
    assertThat(find()).isEqualTo(java(jvms.resolve("known")));
    assertThat(asked).doesNotExist();
  }

  @Test
  void thereMayBeNone() throws IOException {
    home(jvms.resolve("old"), "24.0.2");
    environment.put("JAVA_HOME", "/nonexistent");
    JavaFinder finder = new JavaFinder(environment, "/nonexistent");
    assertThat(finder.find(Launcher.NEEDED_JAVA)).isNull();
    assertThat(finder.whereItLooked())
        .contains("JAVA_HOME=/nonexistent", "JDK_HOME (not set)", "PATH", jvms.toString());
  }

  @Test
  void theUsualPlacesIncludeTheUsersOwn() throws IOException {
    environment.remove(JavaFinder.ROOTS_VARIABLE);
    Path home = home(directory.resolve(".sdkman/candidates/java/999-tem"), "999");
    assertThat(find()).isEqualTo(java(home));
  }

  private File find() {
    return new JavaFinder(environment, directory.toString()).find(Launcher.NEEDED_JAVA);
  }

  private static File java(Path home) {
    return home.resolve("bin/java").toFile();
  }

  private static Path home(Path home, String version) throws IOException {
    program(home, "exit 1");
    Files.writeString(
        home.resolve("release"),
        "IMPLEMENTOR=\"nobody\"\nJAVA_RUNTIME_VERSION=\"1+2\"\nJAVA_VERSION=\"" + version + "\"\n");
    return home;
  }

  private static void program(Path home, String script) throws IOException {
    Path java = Files.createDirectories(home.resolve("bin")).resolve("java");
    Files.writeString(java, "#!/bin/sh\n" + script + "\n");
    Files.setPosixFilePermissions(java, PosixFilePermissions.fromString("rwxr-xr-x"));
  }
}
