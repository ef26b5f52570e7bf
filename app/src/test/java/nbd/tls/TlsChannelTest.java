package nbd.tls;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.util.Arrays;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLException;
import nbd.testing.Bytes;
import nbd.testing.ChannelPair;
import nbd.testing.Eventually;
import nbd.testing.TestCertificates;
import nbd.tls.Handshakes.Connected;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Data in both directions, KeyUpdates, ends and attacks. */
@Timeout(300)
final class TlsChannelTest {
  private static final int ALERT = 0x15;

  private final SSLEngine serverEngine = engine(false);
  private final SSLEngine clientEngine = engine(true);
  private ChannelPair pair = new ChannelPair(1 << 16, 1 << 16);

  private static SSLEngine engine(boolean client) {
    try {
      CertificateDirectory directory = new CertificateDirectory(TestCertificates.GOOD);
      SSLContext context = client ? directory.forClient(true) : directory.forServer(false);
      SSLEngine engine = context.createSSLEngine();
      engine.setUseClientMode(client);
      return engine;
    } catch (CertificateFileException broken) {
      throw new AssertionError(broken);
    }
  }

  private Connected connect() throws Exception {
    return Handshakes.connect(
        pair,
        () -> TlsChannel.handshake(pair.left(), serverEngine),
        () -> TlsChannel.handshake(pair.right(), clientEngine));
  }

  private Connected connect(String version) throws Exception {
    clientEngine.setEnabledProtocols(new String[] {version});
    return connect();
  }

  /** Sends random pieces both ways at the same time, and checks them. */
  private static void exchange(Connected both, long seed, int bytes) throws Exception {
    byte[] there = Bytes.random(seed, bytes);
    byte[] back = Bytes.random(seed + 1, bytes);
    Future<byte[]> atClient = Handshakes.start(() -> takeInPieces(both.client(), seed, bytes));
    Future<byte[]> atServer = Handshakes.start(() -> takeInPieces(both.server(), seed, bytes));
    Future<Void> fromServer = Handshakes.start(() -> sendInPieces(both.server(), seed, there));
    Future<Void> fromClient = Handshakes.start(() -> sendInPieces(both.client(), seed, back));
    Handshakes.await(fromServer);
    Handshakes.await(fromClient);
    assertThat(Handshakes.await(atClient)).as("seed %d", seed).isEqualTo(there);
    assertThat(Handshakes.await(atServer)).as("seed %d", seed).isEqualTo(back);
  }

  private static Void sendInPieces(ByteChannel to, long seed, byte[] data) throws IOException {
    Random random = new Random(seed);
    int done = 0;
    while (done < data.length) {
      int piece = Math.min(data.length - done, 1 + random.nextInt(1 << random.nextInt(1, 19)));
      ByteBuffer left = ByteBuffer.allocateDirect(piece).put(data, done, piece).flip();
      int first = random.nextInt(piece + 1);
      if (random.nextBoolean()) {
        ((TlsChannel) to)
            .write(new ByteBuffer[] {left.slice(0, first), left.slice(first, piece - first)});
      } else {
        to.write(left);
        assertThat(left.hasRemaining()).isFalse();
      }
      done += piece;
    }
    return null;
  }

  private static byte[] takeInPieces(ByteChannel from, long seed, int count) throws IOException {
    Random random = new Random(seed);
    ByteBuffer all = ByteBuffer.allocateDirect(count);
    while (all.hasRemaining()) {
      int most = Math.min(all.remaining(), 1 + random.nextInt(1 << random.nextInt(1, 19)));
      int end = all.limit();
      all.limit(all.position() + most);
      assertThat(from.read(all)).isPositive();
      all.limit(end);
    }
    byte[] bytes = new byte[count];
    all.flip().get(bytes);
    return bytes;
  }

  @ParameterizedTest
  @CsvSource({"TLSv1.3,13,4096", "TLSv1.2,13,4096", "TLSv1.3,65536,5000", "TLSv1.3,65536,65536"})
  void everythingArrivesBothWaysAtATime(String version, int most, int capacity) throws Exception {
    pair = new ChannelPair(capacity, most);
    long seed = Long.getLong("nbd.seed", System.nanoTime());
    try (Connected both = connect(version)) {
      exchange(both, seed, 1 << 20);
      assertThat(((TlsChannel) both.server()).agreed()).startsWith(version + " TLS_");
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256"
      })
  void everythingArrivesWithEachCipher(String cipher) throws Exception {
    clientEngine.setEnabledCipherSuites(new String[] {cipher});
    try (Connected both = connect("TLSv1.3")) {
      exchange(both, 5, 3 << 20);
      assertThat(((TlsChannel) both.server()).agreed()).endsWith(cipher);
    }
  }

  @Test
  void aReadIntoLittleRoomLosesNothing() throws Exception {
    try (Connected both = connect()) {
      byte[] data = Bytes.random(2, 40_000);
      Handshakes.writeAll(both.server(), data);
      assertThat(both.client().read(ByteBuffer.allocate(0))).isZero();
      byte[] taken = new byte[data.length];
      for (int i = 0; i < data.length; i += 7) {
        byte[] piece = Handshakes.take(both.client(), Math.min(7, data.length - i));
        System.arraycopy(piece, 0, taken, i, piece.length);
      }
      assertThat(taken).isEqualTo(data);
    }
  }

  /** A second handshake on the engine sends a KeyUpdate. */
  @Test
  void keysChangeWhileBothSend() throws Exception {
    try (Connected both = connect("TLSv1.3")) {
      for (int round = 0; round < 10; round++) {
        Future<Void> running =
            Handshakes.start(
                () -> {
                  exchange(both, 3, 300_000);
                  return null;
                });
        serverEngine.beginHandshake();
        clientEngine.beginHandshake();
        Handshakes.await(running);
      }
      exchange(both, 4, 100_000);
    }
  }

  /** A side that answered a KeyUpdate at once would wait for the peer, and the peer for it. */
  @Test
  void aKeyUpdateIsReadWhileTheOwnWriteWaitsForThePeer() throws Exception {
    try (Connected both = connect("TLSv1.3")) {
      byte[] large = Bytes.random(6, 1 << 20);
      Future<Void> writing =
          Handshakes.start(
              () -> {
                Handshakes.writeAll(both.server(), large);
                return null;
              });
      Eventually.isTrue("the server's write waits", pair::leftWaitsToWrite);
      clientEngine.beginHandshake();
      byte[] small = Bytes.random(7, 50_000);
      Future<byte[]> arrived = Handshakes.start(() -> Handshakes.take(both.server(), small.length));
      Handshakes.writeAll(both.client(), small);
      assertThat(Handshakes.await(arrived)).isEqualTo(small);
      assertThat(writing.isDone()).as("the client has read nothing").isFalse();
      assertThat(Handshakes.take(both.client(), large.length)).isEqualTo(large);
      Handshakes.await(writing);
      exchange(both, 8, 100_000);
    }
  }

  /** Sends KeyUpdates that ask for one, with so many bytes between, until the server leaves. */
  private void floodWithKeyUpdates(int bytesBetween, AtomicInteger sent) throws IOException {
    ByteBuffer records = ByteBuffer.allocate(4 * RecordBuffers.RECORD_BYTES);
    try {
      while (sent.get() < 100_000) {
        clientEngine.beginHandshake();
        clientEngine.wrap(ByteBuffer.allocate(0), records.clear());
        if (bytesBetween > 0) {
          clientEngine.wrap(ByteBuffer.allocate(bytesBetween), records);
        }
        records.flip();
        while (records.hasRemaining()) {
          pair.right().write(records);
        }
        sent.incrementAndGet();
      }
    } catch (IOException gone) {
      // The server has refused it.
    }
  }

  /** Each KeyUpdate costs the peer 27 bytes, and the engine keeps an answer of a kilobyte. */
  @ParameterizedTest
  @ValueSource(ints = {0, 1})
  void aPeerThatOnlySendsKeyUpdatesAndTakesNoAnswerIsRefused(int bytesBetween) throws Exception {
    Connected both = connect("TLSv1.3");
    AtomicInteger sent = new AtomicInteger();
    Future<Void> flood =
        Handshakes.start(
            () -> {
              floodWithKeyUpdates(bytesBetween, sent);
              return null;
            });
    AtomicInteger taken = new AtomicInteger();
    assertThatThrownBy(
            () -> {
              ByteBuffer into = ByteBuffer.allocate(1 << 16);
              while (true) {
                taken.addAndGet(both.server().read(into.clear()));
              }
            })
        .isInstanceOf(SSLException.class)
        .hasMessageContaining("without data");
    assertThat(taken.get()).as("records with data before that").isLessThan(100);
    both.server().close();
    Handshakes.await(flood);
  }

  @Test
  void keysMayChangeAsOftenAsDataGoesBothWays() throws Exception {
    try (Connected both = connect("TLSv1.3")) {
      for (int round = 0; round < 200; round++) {
        clientEngine.beginHandshake();
        both.client().write(ByteBuffer.allocate(10));
        Handshakes.take(both.server(), 10);
        both.server().write(ByteBuffer.allocate(10));
        Handshakes.take(both.client(), 10);
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"TLSv1.3", "TLSv1.2"})
  void aGoodbyeIsTheEndOfTheStream(String version) throws Exception {
    Connected both = connect(version);
    Handshakes.writeAll(both.server(), new byte[] {1, 2, 3});
    both.server().close();
    assertThat(both.server().isOpen()).isFalse();
    assertThat(Handshakes.take(both.client(), 3)).containsExactly(1, 2, 3);
    assertThat(both.client().read(ByteBuffer.allocate(9))).isEqualTo(-1);
    assertThat(both.client().read(ByteBuffer.allocate(9))).isEqualTo(-1);
    assertThat(clientEngine.isInboundDone()).as("close_notify came").isTrue();
    assertThatThrownBy(() -> both.server().write(ByteBuffer.allocate(9)))
        .isInstanceOf(IOException.class);
    both.client().close();
    both.client().close();
  }

  @Test
  void aGoodbyeFromAPeerThatIsBeingSentToDoesNotStopWhatIsSent() throws Exception {
    Connected both = connect("TLSv1.3");
    byte[] large = Bytes.random(9, 1 << 20);
    Future<Void> writing =
        Handshakes.start(
            () -> {
              Handshakes.writeAll(both.server(), large);
              return null;
            });
    Eventually.isTrue("the server's write waits", pair::leftWaitsToWrite);
    clientEngine.closeOutbound();
    ByteBuffer goodbye = ByteBuffer.allocate(RecordBuffers.RECORD_BYTES);
    clientEngine.wrap(ByteBuffer.allocate(0), goodbye);
    pair.right().write(goodbye.flip());
    assertThat(both.server().read(ByteBuffer.allocate(9))).isEqualTo(-1);
    assertThat(Handshakes.take(both.client(), large.length)).isEqualTo(large);
    Handshakes.await(writing);
    both.close();
  }

  @Test
  void closingEndsAWriteThatAPeerDoesNotTake() throws Exception {
    Connected both = connect();
    Future<Void> writing =
        Handshakes.start(
            () -> {
              Handshakes.writeAll(both.server(), new byte[1 << 20]);
              return null;
            });
    Eventually.isTrue("the server's write waits", pair::leftWaitsToWrite);
    both.server().close();
    assertThatThrownBy(() -> Handshakes.await(writing)).isInstanceOf(IOException.class);
    assertThatThrownBy(() -> both.server().write(ByteBuffer.allocate(1)))
        .isInstanceOf(IOException.class);
  }

  @Test
  void closingDoesNotWaitForAPeerThatTakesNoGoodbye() throws Exception {
    pair = new ChannelPair(4096, 4096);
    Connected both = connect();
    Future<Void> filling =
        Handshakes.start(
            () -> {
              while (pair.onTheWayToRight().length < 4096) {
                pair.left().write(ByteBuffer.allocate(1));
              }
              return null;
            });
    Handshakes.await(filling);
    both.server().close();
    assertThat(both.server().isOpen()).isFalse();
  }

  @Test
  void anEndWithoutGoodbyeIsTheEndOfTheStreamBetweenRecords() throws Exception {
    Connected both = connect();
    Handshakes.writeAll(both.server(), new byte[] {1, 2, 3});
    pair.left().close();
    assertThat(Handshakes.take(both.client(), 3)).containsExactly(1, 2, 3);
    assertThat(both.client().read(ByteBuffer.allocate(9))).isEqualTo(-1);
    assertThat(clientEngine.isInboundDone()).as("close_notify came").isFalse();
  }

  @Test
  void anEndInTheMiddleOfARecordIsAnError() throws Exception {
    Connected both = connect();
    Handshakes.writeAll(both.server(), new byte[100]);
    pair.cutToRight(1);
    pair.left().close();
    assertThatThrownBy(() -> Handshakes.take(both.client(), 1)).isInstanceOf(EOFException.class);
    assertThat(both.client().read(ByteBuffer.allocate(9))).isEqualTo(-1);
  }

  @ParameterizedTest
  @ValueSource(strings = {"TLSv1.3", "TLSv1.2"})
  void aChangedRecordIsAnErrorAndThePeerIsTold(String version) throws Exception {
    Connected both = connect(version);
    Handshakes.writeAll(both.server(), new byte[100]);
    pair.damageLastByteToRight();
    ByteBuffer into = ByteBuffer.allocate(200);
    assertThatThrownBy(() -> both.client().read(into)).isInstanceOf(SSLException.class);
    assertThat(into.position()).as("bytes of the record").isZero();
    assertThatThrownBy(() -> both.server().read(into))
        .isInstanceOf(SSLException.class)
        .hasMessageContaining("bad_record_mac");
    assertThatThrownBy(() -> both.client().write(ByteBuffer.allocate(1)))
        .isInstanceOf(IOException.class);
  }

  @Test
  void anotherHandshakeInTls12IsRefused() throws Exception {
    Connected both = connect("TLSv1.2");
    Handshakes.writeAll(pair.right(), hello());
    assertThatThrownBy(() -> both.server().read(ByteBuffer.allocate(9)))
        .isInstanceOf(SSLException.class);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"NBDMAGIC and other things", "GET / HTTP/1.0\r\n\r\n", "\u0016\u0003\u0001"})
  void plaintextIsRefused(String junk) throws Exception {
    TlsServer server = TlsServer.load(TestCertificates.GOOD, false);
    byte[] bytes = junk.getBytes(java.nio.charset.StandardCharsets.ISO_8859_1);
    pair.right().write(ByteBuffer.wrap(bytes));
    if (bytes[0] == 0x16) {
      pair.right().write(ByteBuffer.wrap(Bytes.random(3, 60_000)));
    }
    assertThatThrownBy(() -> server.accept(pair.left())).isInstanceOf(SSLException.class);
    assertThat(pair.onTheWayToRight()).as("an alert").startsWith((byte) ALERT);
  }

  @Test
  void aPeerThatLeavesInTheHandshakeIsAnError() throws Exception {
    TlsServer server = TlsServer.load(TestCertificates.GOOD, false);
    pair.right().close();
    assertThatThrownBy(() -> server.accept(pair.left()))
        .isInstanceOf(SSLException.class)
        .hasMessageContaining("left");
  }

  @Test
  void aPeerThatLeavesWhileItIsSentToInTheHandshakeIsTheSameError() throws Exception {
    pair = new ChannelPair(200, 200);
    TlsServer server = TlsServer.load(TestCertificates.GOOD, false);
    Future<TlsChannel> sending = Handshakes.start(() -> server.accept(pair.left()));
    Handshakes.writeAll(pair.right(), hello());
    Eventually.isTrue("the server's write waits", pair::leftWaitsToWrite);
    pair.right().close();
    assertThatThrownBy(() -> Handshakes.await(sending))
        .isInstanceOf(SSLException.class)
        .hasMessageContaining("left in the middle of it: Broken pipe");
  }

  private byte[] hello() throws SSLException {
    clientEngine.beginHandshake();
    ByteBuffer hello = ByteBuffer.allocate(RecordBuffers.RECORD_BYTES);
    clientEngine.wrap(ByteBuffer.allocate(0), hello);
    return Arrays.copyOf(hello.array(), hello.position());
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void closingTheChannelBelowEndsAStalledHandshake(boolean inTheMiddle) throws Exception {
    TlsServer server = TlsServer.load(TestCertificates.GOOD, false);
    Future<TlsChannel> stalled = Handshakes.start(() -> server.accept(pair.left()));
    if (inTheMiddle) {
      Handshakes.writeAll(pair.right(), hello());
      Eventually.isTrue("the server answers", () -> pair.onTheWayToRight().length > 0);
    }
    pair.left().close();
    assertThatThrownBy(() -> Handshakes.await(stalled)).isInstanceOf(IOException.class);
  }

  @ParameterizedTest
  @ValueSource(strings = {"TLSv1.1", "TLSv1"})
  void olderVersionsAreRefused(String version) throws Exception {
    // The JDK does not speak these versions, so this is a hello without extensions.
    byte[] hello =
        Bytes.of()
            .raw((byte) 0x16, (byte) 3, (byte) 1)
            .u16(45)
            .raw((byte) 1, (byte) 0)
            .u16(41)
            .raw((byte) 3, (byte) (version.equals("TLSv1") ? 1 : 2))
            .raw(Bytes.random(1, 32))
            .raw((byte) 0)
            .u16(2)
            .u16(0xc013)
            .raw((byte) 1, (byte) 0)
            .toArray();
    pair.right().write(ByteBuffer.wrap(hello));
    assertThatThrownBy(() -> TlsServer.load(TestCertificates.GOOD, false).accept(pair.left()))
        .isInstanceOf(SSLException.class)
        .hasMessageContaining(version);
    byte[] answer = pair.onTheWayToRight();
    assertThat(Arrays.copyOf(answer, 1)).containsExactly(ALERT);
  }

  @Test
  void aClientSpeaksToAServerOfEachVersion() throws Exception {
    TlsClient client = TlsClient.load(Optional.of(TestCertificates.GOOD), true);
    for (String version : new String[] {"TLSv1.2", "TLSv1.3"}) {
      ChannelPair wire = new ChannelPair(1 << 16, 1 << 16);
      SSLEngine engine = engine(false);
      engine.setEnabledProtocols(new String[] {version});
      try (Connected both =
          Handshakes.connect(
              wire,
              () -> TlsChannel.handshake(wire.left(), engine),
              () -> client.client(wire.right(), "localhost"))) {
        exchange(both, 11, 100_000);
      }
    }
  }
}
