package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.RawClient;
import nbd.testing.ScriptedServer;
import nbd.testing.ScriptedServer.Asked;
import nbd.testing.ScriptedServer.Peer;
import nbd.testing.ScriptedServer.Replies;
import nbd.testing.ScriptedServer.Script;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Upstreams that break the protocol: the client gets an error, the log has a line, and other
 * clients notice nothing.
 */
@Timeout(300)
final class BadUpstreamIT {
  private static final int SIZE = 1 << 20;
  private static final int ESHUTDOWN = 108;
  private static final int SIMPLE = 0x67446698;
  private static final int CHUNK = 0x668e33ef;
  private static final int HAS_FLAGS_AND_FLUSH = 5;

  @TempDir private Path directory;

  private ServeProcess serve(ScriptedServer upstream, String... more) throws Exception {
    List<String> arguments = new ArrayList<>(List.of("-U", directory.resolve("socket").toString()));
    arguments.addAll(List.of(more));
    arguments.add(upstream.uri());
    return ServeProcess.ready(arguments.toArray(String[]::new));
  }

  /** Faults in the handshake. */
  enum Handshake {
    GARBAGE("this is no NBD server"),
    THE_END_AT_ONCE("closed the connection in the handshake"),
    THE_END_AFTER_THE_GREETING("closed the connection in the handshake"),
    TLS("no TLS, no disk"),
    POLICY("not for you"),
    NO_EXPORT("did not send the export's size"),
    A_SIZE_BELOW_ZERO("size");

    private final String reason;

    Handshake(String reason) {
      this.reason = reason;
    }

    /** Plays the upstream's side of a connection. */
    void play(Peer peer) throws IOException {
      switch (this) {
        case GARBAGE -> peer.send(Bytes.random(1, 4096)).awaitEnd();
        case THE_END_AT_ONCE -> {}
        case THE_END_AFTER_THE_GREETING -> peer.greet(3);
        case TLS -> {
          peer.greet(3);
          peer.refuse(peer.option().option(), ScriptedServer.ERR_TLS_REQD, "no TLS, no disk");
          peer.awaitEnd();
        }
        case POLICY -> {
          peer.agree(Replies.SIMPLE).expectOption(ScriptedServer.GO);
          peer.refuse(ScriptedServer.GO, ScriptedServer.ERR_POLICY, "not for you").awaitEnd();
        }
        case NO_EXPORT -> {
          peer.agree(Replies.SIMPLE).expectOption(ScriptedServer.GO);
          peer.reply(ScriptedServer.GO, ScriptedServer.ACK).awaitEnd();
        }
        case A_SIZE_BELOW_ZERO -> {
          peer.agree(Replies.SIMPLE).expectOption(ScriptedServer.GO);
          byte[] export = ScriptedServer.export(-1, HAS_FLAGS_AND_FLUSH);
          peer.reply(ScriptedServer.GO, ScriptedServer.INFO, export);
          peer.reply(ScriptedServer.GO, ScriptedServer.ACK).awaitEnd();
        }
      }
    }
  }

  @ParameterizedTest
  @EnumSource(Handshake.class)
  void aClientIsToldOfAHandshakeThatFailsAndTheNextOneIsServed(Handshake bad) throws Exception {
    try (ScriptedServer upstream = ScriptedServer.of(goodUntilTheEnd(), bad::play, good());
        ServeProcess serve = serve(upstream)) {
      int error = bad == Handshake.POLICY ? ScriptedServer.ERR_POLICY : RawClient.ERR_UNKNOWN;
      try (RawClient client = serve.client()) {
        client.disconnect();
      }
      try (RawClient client = RawClient.connect(serve.address())) {
        client.hello(3).option(RawClient.GO, RawClient.infoData(""));
        assertThat(client.expectError(RawClient.GO, error))
            .containsAnyOf(bad.reason, "the server's log says why");
      }
      readZeroes(serve);
      serve.stop();
      assertThat(serve.err())
          .hasLineCount(1)
          .contains("cannot be opened", bad.reason)
          .doesNotContain("\tat ");
    }
  }

  /** Faults in the answer to a READ. */
  enum Transmission {
    WRONG_COOKIE,
    GARBAGE,
    THE_END,
    TOO_LITTLE,
    ANOTHER_KIND_OF_REPLY;

    /** Answers as the upstream, which then ends. */
    void answer(Peer peer, Asked asked) throws IOException {
      switch (this) {
        case WRONG_COOKIE ->
            peer.send(Bytes.of().u32(SIMPLE).u32(0).u64(asked.cookie() + 1).raw(new byte[512]));
        case GARBAGE -> peer.send(Bytes.random(2, 1000));
        case THE_END -> {}
        case TOO_LITTLE -> peer.simple(asked, 0, new byte[100]);
        case ANOTHER_KIND_OF_REPLY ->
            peer.send(Bytes.of().u32(CHUNK).u16(1).u16(0).u64(asked.cookie()).u32(0));
      }
    }
  }

  @ParameterizedTest
  @EnumSource(Transmission.class)
  void aRequestThatIsAnsweredWrongFailsAndTheNextClientIsServed(Transmission bad) throws Exception {
    Script script =
        peer -> {
          peer.open(Replies.SIMPLE, SIZE, HAS_FLAGS_AND_FLUSH);
          bad.answer(peer, peer.request());
        };
    try (ScriptedServer upstream = ScriptedServer.of(script, good());
        ServeProcess serve = serve(upstream)) {
      try (RawClient client = serve.client()) {
        client.call(RawClient.EIO, 0, RawClient.READ, 0, 512);
        client.disconnect();
      }
      readZeroes(serve);
      serve.stop();
      assertThat(serve.err()).hasLineCount(1).contains(upstream.uri()).doesNotContain("\tat ");
    }
  }

  @Test
  void aReplyThatIsTooLongEndsThatConnectionOnly() throws Exception {
    CountDownLatch answered = new CountDownLatch(1);
    Script tooLong =
        peer -> {
          peer.open(Replies.SIMPLE, SIZE, HAS_FLAGS_AND_FLUSH);
          peer.simple(peer.request(), 0, new byte[600]).await(answered);
        };
    try (ScriptedServer upstream = ScriptedServer.of(tooLong, good());
        ServeProcess serve = serve(upstream, "-v")) {
      try (RawClient client = serve.client()) {
        assertThat(client.read(0, 512)).containsOnly(0);
        Eventually.isTrue("the rest is noticed", () -> serve.said("start with a magic number"));
        client.call(ESHUTDOWN, 0, RawClient.READ, 0, 512);
        answered.countDown();
        client.disconnect();
      }
      readZeroes(serve);
      serve.stop();
    }
  }

  @Test
  void anExportThatChangesBetweenConnectionsIsToEachClientWhatItIsThen() throws Exception {
    Script one = peer -> peer.open(Replies.SIMPLE, SIZE, HAS_FLAGS_AND_FLUSH).awaitEnd();
    Script two = peer -> peer.open(Replies.EXTENDED, 2L * SIZE, HAS_FLAGS_AND_FLUSH | 2).awaitEnd();
    try (ScriptedServer upstream = ScriptedServer.of(one, two);
        ServeProcess serve = serve(upstream)) {
      try (RawClient client = RawClient.connect(serve.address())) {
        RawClient.Export export = client.enter("");
        assertThat(export.size()).isEqualTo(SIZE);
        assertThat(export.has(1)).as("read-only").isFalse();
        client.disconnect();
      }
      try (RawClient client = RawClient.connect(serve.address())) {
        RawClient.Export export = client.enter("");
        assertThat(export.size()).isEqualTo(2L * SIZE);
        assertThat(export.has(1)).as("read-only").isTrue();
        client.disconnect();
      }
      serve.stopQuietly();
    }
  }

  private static Script goodUntilTheEnd() {
    return peer -> peer.open(Replies.SIMPLE, SIZE, HAS_FLAGS_AND_FLUSH).awaitEnd();
  }

  private static Script good() {
    return peer -> {
      peer.open(Replies.SIMPLE, SIZE, HAS_FLAGS_AND_FLUSH);
      Asked asked = peer.request();
      peer.simple(asked, 0, new byte[(int) asked.length()]).awaitEnd();
    };
  }

  private static void readZeroes(ServeProcess serve) throws IOException {
    try (RawClient client = serve.client()) {
      assertThat(client.read(0, 512)).containsOnly(0);
      client.disconnect();
    }
  }
}
