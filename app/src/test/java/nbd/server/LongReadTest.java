package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SeekableByteChannel;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.stream.Stream;
import nbd.file.FileBackend;
import nbd.file.FileSettings;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A long READ, whose data goes from the file to the client's socket. */
@Timeout(300)
final class LongReadTest {
  private static final int BYTES = 4 << 20;
  private static final int O_NONBLOCK = 0x800;

  @TempDir private Path directory;

  /** A transfer that waits for its client would make the file seem slow to all connections. */
  @Test
  void itsTransferDoesNotWaitForItsClient() throws IOException {
    Path file = directory.resolve("disk");
    try (SeekableByteChannel channel =
        Files.newByteChannel(file, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
      channel.write(ByteBuffer.allocate(BYTES));
    }
    try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT);
        TestServer server = TestServer.of(backend);
        RawClient client = server.client()) {
      client.read(0, 4096);
      long before = nonBlockingSockets();
      assertThat(client.read(0, BYTES)).isEqualTo(new byte[BYTES]);
      assertThat(nonBlockingSockets() - before).isEqualTo(1);
      assertThat(client.read(0, BYTES)).isEqualTo(new byte[BYTES]);
      client.disconnect();
    }
  }

  private static long nonBlockingSockets() throws IOException {
    try (Stream<Path> descriptors = Files.list(Path.of("/proc/self/fd"))) {
      return descriptors.filter(LongReadTest::isNonBlockingSocket).count();
    }
  }

  private static boolean isNonBlockingSocket(Path descriptor) {
    try {
      if (!Files.readSymbolicLink(descriptor).toString().startsWith("socket:")) {
        return false;
      }
      List<String> info =
          Files.readAllLines(Path.of("/proc/self/fdinfo").resolve(descriptor.getFileName()));
      return info.stream()
          .filter(line -> line.startsWith("flags:"))
          .anyMatch(line -> (Integer.parseInt(line.substring(6).strip(), 8) & O_NONBLOCK) != 0);
    } catch (NoSuchFileException closedMeanwhile) {
      return false;
    } catch (IOException failure) {
      throw new AssertionError(failure);
    }
  }
}
