package nbd.cli;

import static java.nio.file.LinkOption.NOFOLLOW_LINKS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.SocketException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/**
 * A file with the new socket's name: replaced only if it is a socket on which no server answers.
 */
@Timeout(300)
final class UnixSocketTest {
  @TempDir private Path directory;
  private Path path;

  @BeforeEach
  void choose() {
    path = directory.resolve("socket");
  }

  private void refused(String why) throws IOException {
    Object before = OwnFile.of(path);
    assertThatThrownBy(() -> UnixSocket.listen(path, 1))
        .isInstanceOf(IOException.class)
        .hasMessageContainingAll(path.toString(), why);
    assertThat(OwnFile.of(path)).isEqualTo(before);
  }

  private void abandon() throws IOException {
    try (ServerSocketChannel killed = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      killed.bind(UnixDomainSocketAddress.of(path));
    }
    assertThat(Files.exists(path)).isTrue();
  }

  @Test
  void aSocketThatAKilledServerLeftIsReplaced() throws IOException {
    abandon();
    try (ServerSocketChannel channel = UnixSocket.listen(path, 1);
        SocketChannel client = SocketChannel.open(UnixDomainSocketAddress.of(path))) {
      assertThat(channel.isOpen() && client.isConnected()).isTrue();
    }
    try (var files = Files.list(directory)) {
      assertThat(files).containsExactly(path);
    }
  }

  @Test
  void aSocketThatIsAnsweredStays() throws IOException {
    try (ServerSocketChannel other = UnixSocket.listen(path, 1)) {
      refused("another server answers");
      assertThat(other.isOpen()).isTrue();
    }
  }

  @Test
  void aSocketWhoseServerIsTooBusyToAcceptStays() throws IOException {
    List<SocketChannel> waiting = new ArrayList<>();
    try (ServerSocketChannel other = UnixSocket.listen(path, 1)) {
      assertThatThrownBy(
              () -> {
                while (true) {
                  SocketChannel client = SocketChannel.open(StandardProtocolFamily.UNIX);
                  waiting.add(client);
                  client.configureBlocking(false);
                  client.connect(UnixDomainSocketAddress.of(path));
                }
              })
          .as("the backlog is full")
          .isInstanceOf(SocketException.class);
      refused("cannot listen");
      assertThat(other.isOpen()).isTrue();
    } finally {
      for (SocketChannel client : waiting) {
        client.close();
      }
    }
  }

  @Test
  void aPipeStays() throws Exception {
    assertThat(new ProcessBuilder("mkfifo", path.toString()).start().waitFor()).isZero();
    refused("is not a socket");
  }

  @Test
  void aFileStays() throws IOException {
    Files.createFile(path);
    refused("is not a socket");
  }

  @Test
  void aSymbolicLinkStaysAndSoDoesItsTarget() throws IOException {
    abandon();
    Path target = Files.move(path, directory.resolve("target"));
    Files.createSymbolicLink(path, target);
    refused("is not a socket");
    assertThat(Files.exists(target, NOFOLLOW_LINKS)).isTrue();
    Files.delete(target);
    refused("is not a socket");
  }

  @Test
  void aSocketThatHasTakenItsPlaceIsNotRemovedAtTheEnd() throws IOException {
    OwnFile own;
    try (ServerSocketChannel channel = UnixSocket.listen(path, 1)) {
      own = OwnFile.of(path);
      Files.delete(path);
      try (ServerSocketChannel newer = UnixSocket.listen(path, 1)) {
        own.remove();
        assertThat(path).exists();
        assertThat(newer.isOpen() && channel.isOpen()).isTrue();
      }
    }
    own.remove();
    assertThat(path).exists();
  }
}
