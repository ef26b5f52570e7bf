package nbd.interop;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.InputStream;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import nbd.testing.RawClient;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The jar's licences; and a server whose jar is overwritten: it goes on, and ends in order. */
@Timeout(300)
final class JarIT {
  @TempDir private Path directory;
  private Path jar;
  private Path pid;
  private Path stats;
  private Path disk;

  @BeforeEach
  void create() throws IOException {
    jar = Files.copy(Path.of(System.getProperty("nbd.jar")), directory.resolve("copy.jar"));
    pid = directory.resolve("pid");
    stats = directory.resolve("stats");
    disk = Files.write(directory.resolve("disk"), new byte[1 << 20]);
  }

  private ServeProcess serve(String... more) throws IOException, InterruptedException {
    ProcessBuilder builder =
        ServeProcess.builder(
            "-U", directory.resolve("socket").toString(), "--pid-file=" + pid, "--stats=" + stats);
    List<String> words = builder.command();
    words.set(words.indexOf("-jar") + 1, jar.toString());
    words.addAll(List.of(more));
    return ServeProcess.ready(builder);
  }

  private void overwriteJar() throws IOException {
    long size = Files.size(jar);
    try (FileChannel file = FileChannel.open(jar, StandardOpenOption.WRITE)) {
      file.truncate(0);
    }
    Files.write(jar, new byte[(int) size], StandardOpenOption.WRITE);
  }

  @Test
  void theLicencesOfTheJarAndOfThePackageNameEveryLibraryInIt() throws IOException {
    String notice;
    List<String> packages;
    try (JarFile opened = new JarFile(jar.toFile())) {
      packages =
          opened.stream()
              .map(JarEntry::getName)
              .filter(name -> name.endsWith(".class"))
              .map(name -> name.replaceFirst("^((org/)?[^/]+)/.*", "$1"))
              .distinct()
              .sorted()
              .toList();
      notice = text(opened, "META-INF/NOTICE");
      assertThat(text(opened, "META-INF/LICENSE")).startsWith("BSD 3-Clause License");
      assertThat(text(opened, "META-INF/licenses/Apache-2.0.txt")).contains("Apache License");
    }
    assertThat(packages).containsExactly("nbd", "org/tinylog", "picocli");
    assertThat(notice).contains("\npicocli,", "\ntinylog,");
    assertThat(Path.of("src/deb/copyright"))
        .content()
        .contains("\nFiles: picocli/*\n", "\nFiles: org/tinylog/*\n");
  }

  private static String text(JarFile opened, String entry) throws IOException {
    try (InputStream in = opened.getInputStream(opened.getJarEntry(entry))) {
      return new String(in.readAllBytes(), UTF_8);
    }
  }

  @Test
  void aClientIsServedAndTheServerEndsInOrder() throws Exception {
    try (ServeProcess serve = serve("--cache=writeback", disk.toString())) {
      overwriteJar();
      try (RawClient client = serve.client()) {
        client.write(3, (byte) 4);
        serve.signal("TERM");
        client.expectEnd();
      }
      assertThat(serve.awaitEnd()).as(serve.err()).isZero();
      assertThat(serve.err()).isEmpty();
    }
    assertThat(pid).doesNotExist();
    assertThat(stats).content().contains("\"write\":1");
    assertThat(Files.readAllBytes(disk)[3]).isEqualTo((byte) 4);
  }

  @Test
  void whatGoesWrongAtTheEndIsSaid() throws Exception {
    try (ServeProcess serve = serve(disk.toString())) {
      overwriteJar();
      Files.delete(stats);
      Files.createDirectory(stats);
      serve.signal("TERM");
      assertThat(serve.awaitEnd()).isEqualTo(1);
      assertThat(serve.err()).hasLineCount(1).contains("--stats", stats.toString());
    }
    assertThat(pid).doesNotExist();
  }
}
