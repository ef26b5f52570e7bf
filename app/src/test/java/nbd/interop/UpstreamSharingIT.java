package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.RawClient;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Several clients on one connection, and the end while the server behind is away. */
@Timeout(300)
final class UpstreamSharingIT {
  private static final int SIZE = 4 << 20;
  private static final int NBD_ESHUTDOWN = 108;

  @TempDir private Path directory;
  private Path disk;

  @BeforeEach
  void create() throws Exception {
    disk = Files.write(directory.resolve("disk.img"), new byte[SIZE]);
  }

  private ServeProcess serve(String uri, String... more) throws Exception {
    return ServeProcess.on(directory, uri, more);
  }

  @ParameterizedTest
  @ValueSource(strings = {"--share-connection", "--reconnect=30s"})
  void aServerThatTakesOneClientServesSeveralWhichSeeEachOthersWrites(String option)
      throws Exception {
    try (UpstreamProcess upstream = UpstreamProcess.qemuNbd(directory, disk.toString());
        ServeProcess serve = serve(upstream.uri(), option, "-e", "a", "-e", "b")) {
      RawClient one = serve.client("a");
      RawClient two = serve.client("b");
      RawClient three = serve.client("a");
      byte[] data = Bytes.random(1, 4096);
      one.write(4096, data);
      assertThat(two.read(4096, data.length)).isEqualTo(data);
      two.flush();
      assertThat(three.read(4096, data.length)).isEqualTo(data);
      one.close();
      two.close();
      three.close();
      try (RawClient next = serve.client("b")) {
        assertThat(next.read(4096, data.length)).isEqualTo(data);
      }
      serve.stop();
    }
    assertThat(Files.readAllBytes(disk)).contains(Bytes.random(1, 4096));
  }

  @Test
  void whenTheSharedConnectionBreaksEveryClientIsToldAndTheNextGetsAnotherOne() throws Exception {
    try (UpstreamProcess upstream =
            UpstreamProcess.nbdkit(directory, "--filter=cache", "file", disk.toString());
        ServeProcess serve = serve(upstream.uri(), "--share-connection", "-v")) {
      RawClient one = serve.client();
      RawClient two = serve.client();
      one.write(0, Bytes.random(1, 512));
      upstream.kill();
      upstream.startAgain();
      Eventually.isTrue("it is noticed", () -> serve.said(": the server closed the connection"));
      one.call(NBD_ESHUTDOWN, 0, RawClient.FLUSH, 0, 0);
      two.call(NBD_ESHUTDOWN, 0, RawClient.FLUSH, 0, 0);
      try (RawClient next = serve.client()) {
        next.write(0, (byte) 1).flush();
      }
      serve.stop();
    }
  }

  @Test
  void aTermWhileClientsWaitForTheServerEndsAtOnceAndSaysWhatIsLost() throws Exception {
    try (UpstreamProcess upstream = UpstreamProcess.nbdkit(directory, "file", disk.toString());
        ServeProcess serve = serve(upstream.uri(), "--reconnect=10m")) {
      RawClient client = serve.client();
      client.write(0, Bytes.random(1, 4096));
      upstream.kill();
      client.request(0, RawClient.READ, 1, 0, 512);
      Eventually.isTrue("it waits", () -> serve.said("connecting again, since"));
      serve.signal("TERM");
      client.expectReply(RawClient.EIO, 1);
      assertThat(serve.awaitEnd()).isEqualTo(1);
      assertThat(serve.err()).contains("1 write (4096 bytes)", "lost");
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"--verbose", "--share-connection", "--reconnect=10m", "--cache=writeback"})
  void aTermWhileAClientWaitsForASilentServersHandshakeEnds(String option) throws Exception {
    Path silent = directory.resolve("silent");
    try (ServerSocketChannel listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      listener.bind(UnixDomainSocketAddress.of(silent));
      try (ServeProcess serve =
              serve("nbd+unix:///?socket=" + silent, "--connect-timeout=10m", option);
          RawClient client = RawClient.connect(serve.address())) {
        client.hello(3).option(RawClient.GO, RawClient.infoData(""));
        try (SocketChannel unanswered = listener.accept()) {
          assertThat(unanswered.isConnected()).isTrue();
          serve.signal("TERM");
          assertThat(serve.awaitEnd()).isZero();
        }
      }
    }
  }
}
