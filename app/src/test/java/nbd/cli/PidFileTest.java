package nbd.cli;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The pid file: only this server's own is written and removed. */
@Timeout(300)
final class PidFileTest {
  private static final String OWN = ProcessHandle.current().pid() + "\n";

  @TempDir private Path directory;
  private Path path;

  @BeforeEach
  void choose() {
    path = directory.resolve("pid");
  }

  @Test
  void itIsThereUntilTheEnd() throws IOException {
    PidFile file = new PidFile(path);
    file.write();
    assertThat(path).hasContent(OWN);
    file.remove();
    assertThat(path).doesNotExist();
    file.remove();
  }

  @Test
  void theNumberOfAServerThatWasKilledIsReplaced() throws IOException {
    Files.writeString(path, "123456789\n");
    PidFile file = new PidFile(path);
    file.write();
    assertThat(path).hasContent(OWN);
  }

  @Test
  void aFileThatHoldsSomethingElseIsRefused() throws IOException {
    for (byte[] content : new byte[][] {"notes".getBytes(UTF_8), new byte[512], {'1', -1}}) {
      Files.write(path, content);
      refused("process ID");
      assertThat(path).hasBinaryContent(content);
    }
  }

  @Test
  void aSymbolicLinkIsNotFollowed() throws IOException {
    Path target = directory.resolve("target");
    Files.createSymbolicLink(path, target);
    refused("symbolic link");
    assertThat(target).doesNotExist();
    Files.createFile(target);
    refused("symbolic link");
    assertThat(target).isEmptyFile();
  }

  @Test
  void aDirectoryIsRefused() throws IOException {
    Files.createDirectory(path);
    refused("not a regular file");
  }

  private void refused(String why) throws IOException {
    PidFile file = new PidFile(path);
    assertThatThrownBy(file::write)
        .isInstanceOf(IOException.class)
        .hasMessageContainingAll(path.toString(), why);
    file.remove();
    assertThat(Files.exists(path, java.nio.file.LinkOption.NOFOLLOW_LINKS)).isTrue();
  }

  @Test
  void aPipeGetsTheNumberAndStays() throws Exception {
    assertThat(new ProcessBuilder("mkfifo", path.toString()).start().waitFor()).isZero();
    CompletableFuture<String> read = new CompletableFuture<>();
    Thread.ofPlatform()
        .daemon()
        .start(
            () -> {
              try {
                read.complete(Files.readString(path));
              } catch (IOException failure) {
                read.completeExceptionally(failure);
              }
            });
    PidFile file = new PidFile(path);
    file.write();
    assertThat(read.get()).isEqualTo(OWN);
    file.remove();
    assertThat(path).exists();
  }

  @Test
  void whatAnotherServerHasWrittenSinceStays() throws IOException {
    PidFile file = new PidFile(path);
    file.write();
    Files.writeString(path, "1\n");
    file.remove();
    assertThat(path).hasContent("1\n");
  }

  @Test
  void aFileThatHasTakenItsPlaceStays() throws IOException {
    PidFile file = new PidFile(path);
    file.write();
    Path other = Files.writeString(directory.resolve("other"), OWN);
    Files.move(other, path, java.nio.file.StandardCopyOption.REPLACE_EXISTING);
    file.remove();
    assertThat(path).exists();
  }
}
