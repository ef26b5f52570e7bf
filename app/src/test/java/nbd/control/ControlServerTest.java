package nbd.control;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import nbd.testing.Eventually;
import nbd.testing.Running;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The control socket, its clients, and what hostile clients can do to others: nothing. */
@Timeout(300)
final class ControlServerTest {
  private static final Duration LONG = Duration.ofSeconds(60);
  private static final Duration SHORT = Duration.ofSeconds(3);
  private static final int MORE_THAN_PLACES = 40;

  @TempDir private Path directory;
  private final CountDownLatch reached = new CountDownLatch(1);
  private final CountDownLatch hold = new CountDownLatch(1);
  private final AtomicBoolean allowed = new AtomicBoolean(true);
  private Path socket;
  private ServerSocketChannel listener;

  private final Map<String, Handler> handlers =
      Map.of(
          "echo",
          Handler.of(words -> String.join("|", words) + "\n"),
          "fail",
          Handler.of(
              words -> {
                throw new IOException("it failed\nas it had to");
              }),
          "wrong",
          Handler.of(
              words -> {
                throw new UnsupportedOperationException("mistake");
              }),
          "hold",
          Handler.of(
              words -> {
                reached.countDown();
                Eventually.await(hold);
                return "held\n";
              }),
          "much",
          Handler.of(words -> "x".repeat(8 << 20) + "\n"));

  @BeforeEach
  void listen() throws IOException {
    socket = directory.resolve("control");
    listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    listener.bind(UnixDomainSocketAddress.of(socket), 128);
  }

  @AfterEach
  void close() throws IOException {
    hold.countDown();
    listener.close();
  }

  private ControlServer start(Duration patience) {
    return ControlServer.start(listener, handlers, _ -> allowed.get(), patience);
  }

  private String ask(String request) throws IOException {
    try (ControlClient client = ControlClient.connect(socket)) {
      client.request(request);
      return client.lines();
    }
  }

  private SocketChannel raw() throws IOException {
    return SocketChannel.open(UnixDomainSocketAddress.of(socket));
  }

  private static String rest(SocketChannel channel) throws IOException {
    return new String(Channels.newInputStream(channel).readAllBytes(), UTF_8);
  }

  @Test
  void aRequestIsAnsweredWithLines() throws IOException {
    start(LONG);
    assertThat(ask("echo")).isEqualTo("\n");
    assertThat(ask("echo a 'b c'  \"d\\ne\"")).isEqualTo("a|b c|d\ne\n");
    assertThat(ask("  echo é☃ \r")).isEqualTo("é☃\n");
  }

  @Test
  void theGreetingAndTheStatusAreLines() throws IOException {
    start(LONG);
    try (SocketChannel client = raw()) {
      client.write(UTF_8.encode("echo 1\n"));
      assertThat(rest(client)).isEqualTo("nbd-multiconn control 1\nok\n1\n");
    }
  }

  @Test
  void aRefusalIsOneLineThatSaysWhy() {
    start(LONG);
    assertThatThrownBy(() -> ask("fail")).hasMessage("it failed?as it had to");
    assertThatThrownBy(() -> ask("wrong")).hasMessageContaining("mistake");
    assertThatThrownBy(() -> ask("echo 'a")).hasMessageContaining("not closed");
    assertThatThrownBy(() -> ask("no-such thing"))
        .hasMessageContaining("no request \"no-such\"")
        .hasMessageContaining("echo, fail, hold");
    assertThatThrownBy(() -> ask("")).hasMessageContaining("no request \"\"");
  }

  @Test
  void aHandlerHasTheChannelAndAllThatFollowsTheLine() throws IOException {
    ControlServer.start(
        listener,
        Map.of(
            "take",
            (arguments, channel) -> {
              ByteBuffer more = ByteBuffer.allocate(4);
              while (more.hasRemaining()) {
                channel.read(more);
              }
              Answer.ok(channel, arguments + new String(more.array(), UTF_8) + "\n");
            }),
        _ -> true);
    try (SocketChannel client = raw()) {
      client.write(UTF_8.encode("take  this\nrest"));
      assertThat(rest(client)).endsWith("ok\n thisrest\n");
    }
  }

  @Test
  void theLongestLineIsAnsweredAndALongerOneIsRefused() throws IOException {
    start(LONG);
    String longest = "x".repeat(ControlServer.LONGEST_REQUEST - 5);
    assertThat(ask("echo " + longest)).isEqualTo(longest + "\n");
    assertThatThrownBy(() -> ask("echo x" + longest)).hasMessageContaining("longer than 65536");
    try (SocketChannel client = raw()) {
      client.write(ByteBuffer.wrap(new byte[] {(byte) 0xff, (byte) 0xfe, '\n'}));
      assertThat(rest(client)).contains("refused ", "not UTF-8");
    }
  }

  @Test
  void aClientThatSendsNothingOrHalfALineIsCut() throws IOException {
    start(SHORT);
    try (SocketChannel silent = raw();
        SocketChannel half = raw()) {
      half.write(UTF_8.encode("ech"));
      assertThat(rest(silent)).isEqualTo("nbd-multiconn control 1\n");
      assertThat(rest(half)).isEqualTo("nbd-multiconn control 1\n");
    }
    try (SocketChannel gone = raw()) {
      gone.write(UTF_8.encode("echo"));
    }
  }

  @Test
  void silentClientsTakePlacesForAWhileOnly() throws IOException {
    start(SHORT);
    List<SocketChannel> silent = new ArrayList<>();
    try {
      for (int i = 0; i < MORE_THAN_PLACES; i++) {
        silent.add(raw());
      }
      try (SocketChannel client = raw()) {
        client.write(UTF_8.encode("echo 1\n"));
        assertThat(rest(client)).endsWith("ok\n1\n");
      }
    } finally {
      for (SocketChannel channel : silent) {
        channel.close();
      }
    }
  }

  @Test
  void twoClientsAreAnsweredAtTheSameTime() throws IOException {
    ControlServer server = start(LONG);
    Running held = Running.start(() -> assertThat(ask("hold")).isEqualTo("held\n"));
    try (ControlClient other = ControlClient.connect(socket);
        SocketChannel silent = raw()) {
      other.request("echo now");
      assertThat(other.lines()).isEqualTo("now\n");
      assertThat(LineInput.read(silent, 100)).isEqualTo(ControlServer.GREETING);
      Eventually.await(reached);
      assertThat(held.isDone()).isFalse();
      server.stopAccepting();
      assertThat(rest(silent)).isEmpty();
      hold.countDown();
      held.join(LONG);
      assertThat(server.awaitAnswers(LONG)).isTrue();
      assertThat(server.awaitAnswers(LONG)).as("another one waits").isTrue();
    }
  }

  @Test
  void aClientThatDoesNotReadKeepsNobodyWaiting() throws IOException {
    start(LONG);
    try (SocketChannel lazy = raw()) {
      lazy.write(UTF_8.encode("much\n"));
      assertThat(ask("echo here")).isEqualTo("here\n");
    }
    assertThat(ask("much")).hasSize((8 << 20) + 1);
  }

  @Test
  void anotherUsersClientIsCut() {
    allowed.set(false);
    start(LONG);
    assertThatThrownBy(() -> ask("echo")).hasMessageContaining("another user's");
  }

  @Test
  void aSocketThatIsNoControlSocketIsRecognized() throws IOException {
    Running other =
        Running.start(
            () -> {
              try (SocketChannel channel = listener.accept()) {
                channel.write(UTF_8.encode("NBDMAGIC\n"));
                rest(channel);
              }
            });
    assertThatThrownBy(() -> ask("echo")).hasMessageContaining("no control socket");
    other.join(LONG);
  }
}
