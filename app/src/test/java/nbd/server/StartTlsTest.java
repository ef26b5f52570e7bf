package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.time.Duration;
import java.util.Optional;
import javax.net.ssl.SSLException;
import nbd.memory.MemoryBackend;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.Leave;
import nbd.testing.Log;
import nbd.testing.RawClient;
import nbd.testing.TestCertificates;
import nbd.tls.TlsClient;
import nbd.tls.TlsServer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.tinylog.Level;

/** STARTTLS, byte by byte, where TLS is off, offered and required. */
@Timeout(300)
final class StartTlsTest {
  private static final int SIZE = 4 << 20;
  private static final int[] OPTIONS = {3, 4, 6, 7, 8, 9, 10, 11, 12, 0, 0x7fffffff};

  private static TestServer server(boolean required, boolean verifyPeer) throws IOException {
    TlsServer tls = TlsServer.load(TestCertificates.GOOD, verifyPeer);
    return TestServer.with(new MemoryBackend(SIZE))
        .tls(new TlsPolicy(Optional.of(tls), required))
        .handshakeTimeout(Duration.ofMinutes(2))
        .start();
  }

  private static ByteChannel tls(ByteChannel plain) throws IOException {
    return TlsClient.load(Optional.of(TestCertificates.GOOD), true).client(plain, "localhost");
  }

  private static void expectWarning(String... words) throws InterruptedException {
    Eventually.isTrue("a line is logged", () -> !Log.at(Level.WARN).isEmpty());
    assertThat(Log.at(Level.WARN)).hasSize(1);
    assertThat(Log.at(Level.WARN).getFirst()).contains(words);
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void insideTlsEverythingWorks(boolean required) throws Exception {
    byte[] data = Bytes.random(1, 1_000_000);
    try (TestServer server = server(required, true);
        RawClient client = server.connect()) {
      client.hello(3).startTls(StartTlsTest::tls);
      client.option(RawClient.LIST);
      assertThat(client.reply(RawClient.LIST).type()).isEqualTo(RawClient.SERVER);
      client.expectAck(RawClient.LIST);
      client.option(RawClient.GO, RawClient.infoData(""));
      client.expectInfos(RawClient.GO);
      client.write(5, data);
      for (int length : new int[] {1, 4096, 65_536, 65_537, 262_144, 262_145, 999_000}) {
        assertThat(client.read(7, length))
            .isEqualTo(java.util.Arrays.copyOfRange(data, 2, 2 + length));
      }
      client.call(RawClient.EINVAL, 0, RawClient.READ, SIZE, 1).flush().disconnect();
    }
  }

  @Test
  void exportNameAndAbortWorkInsideTls() throws Exception {
    try (TestServer server = server(true, false);
        RawClient client = server.connect();
        RawClient leaving = server.connect()) {
      client.hello(3).startTls(StartTlsTest::tls).option(RawClient.EXPORT_NAME);
      assertThat(ByteBuffer.wrap(client.take(10)).getLong()).isEqualTo(SIZE);
      client.read(0, 10);
      client.disconnect();
      leaving.hello(3).startTls(StartTlsTest::tls).option(RawClient.ABORT);
      leaving.expectAck(RawClient.ABORT).expectEnd();
    }
  }

  @Test
  void whereTlsIsOfferedItNeedNotBeUsed() throws Exception {
    try (TestServer server = server(false, false);
        RawClient client = server.client()) {
      client.write(0, (byte) 1).disconnect();
    }
  }

  @Test
  void whereTlsIsRequiredNothingElseIsAnsweredBefore() throws Exception {
    try (TestServer server = server(true, false);
        RawClient client = server.connect()) {
      client.hello(3);
      for (int option : OPTIONS) {
        for (int length : new int[] {0, 6, 100_000}) {
          client.option(option, new byte[length]);
          client.expectError(option, RawClient.ERR_TLS_REQD);
        }
      }
      client.startTls(StartTlsTest::tls);
      for (int option : OPTIONS) {
        client.option(option, new byte[100_000]);
        int type = client.reply(option).type();
        assertThat(type).isNegative().isNotEqualTo(RawClient.ERR_TLS_REQD);
      }
      client.option(RawClient.ABORT).expectAck(RawClient.ABORT).expectEnd();
    }
  }

  @Test
  void whereTlsIsRequiredExportNameIsTheEnd() throws Exception {
    try (TestServer server = server(true, false)) {
      for (int flags : new int[] {3, 1, 0}) {
        try (RawClient client = server.connect()) {
          Log.clear();
          client.hello(flags).option(RawClient.EXPORT_NAME).expectEnd();
          expectWarning("EXPORT_NAME", "TLS");
        }
      }
      try (RawClient client = server.connect()) {
        client.hello(3).option(RawClient.ABORT).expectAck(RawClient.ABORT).expectEnd();
      }
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void startTlsWithDataOrTwiceIsInvalid(boolean required) throws Exception {
    try (TestServer server = server(required, false);
        RawClient client = server.connect()) {
      client.hello(3);
      for (int length : new int[] {1, 100, 1_000_000}) {
        client.option(RawClient.STARTTLS, new byte[length]);
        client.expectError(RawClient.STARTTLS, RawClient.ERR_INVALID);
      }
      client.startTls(StartTlsTest::tls).option(RawClient.STARTTLS);
      client.expectError(RawClient.STARTTLS, RawClient.ERR_INVALID);
      client.option(RawClient.GO, RawClient.infoData(""));
      client.expectInfos(RawClient.GO);
      client.disconnect();
    }
  }

  @Test
  void anExportThatWasAskedAboutBeforeTlsIsClosed() throws Exception {
    try (TestServer server = server(false, false);
        RawClient client = server.connect()) {
      client.hello(3).option(RawClient.OPT_INFO, RawClient.infoData(""));
      client.expectInfos(RawClient.OPT_INFO);
      server.awaitHandles(2);
      client.startTls(StartTlsTest::tls);
      server.awaitHandles(1);
      client.option(RawClient.GO, RawClient.infoData(""));
      client.expectInfos(RawClient.GO);
      client.disconnect();
    }
  }

  /** A man in the middle could have inserted it, for the server to take it as the client's. */
  @Test
  void whatComesBehindStartTlsIsNeverTakenAsTheClients() throws Exception {
    byte[] both =
        Bytes.of()
            .raw(RawClient.optionBytes(RawClient.STARTTLS))
            .raw(RawClient.optionBytes(RawClient.LIST))
            .toArray();
    try (TestServer server = server(true, false)) {
      try (RawClient client = server.connect()) {
        client.hello(3).send(both).expectEnd();
        expectWarning("16 bytes", "STARTTLS");
      }
      // If it comes after the reply, it is no TLS record.
      try (RawClient client = server.connect()) {
        Log.clear();
        client.hello(3).option(RawClient.STARTTLS).expectAck(RawClient.STARTTLS);
        client.option(RawClient.LIST);
        assertThat(client.take(7)).as("an alert").startsWith(0x15);
        client.expectEnd();
        expectWarning("TLS failed");
      }
    }
  }

  @Test
  void aClientWithoutTheRightCertificateIsOneLogLine() throws Exception {
    TlsClient stranger = TlsClient.load(Optional.of(TestCertificates.OTHER), false);
    try (TestServer server = server(false, true);
        RawClient client = server.connect()) {
      client.hello(3);
      assertThatThrownBy(
              () ->
                  client
                      .startTls(plain -> stranger.client(plain, ""))
                      .option(RawClient.LIST)
                      .reply(RawClient.LIST))
          // Or the server is gone before the client has sent its option.
          .isInstanceOf(IOException.class);
      expectWarning("TLS failed");
      assertThat(Log.at(Level.ERROR)).isEmpty();
    }
  }

  @Test
  void aClientThatRefusesTheServersCertificateIsOneLogLine() throws Exception {
    TlsClient distrustful = TlsClient.load(Optional.of(TestCertificates.OTHER), true);
    try (TestServer server = server(false, false);
        RawClient client = server.connect()) {
      client.hello(3);
      assertThatThrownBy(() -> client.startTls(plain -> distrustful.client(plain, "localhost")))
          .isInstanceOf(SSLException.class);
      expectWarning("TLS failed", "fatal alert");
    }
  }

  @Test
  void aStalledTlsHandshakeEndsWithTheTimeout() throws Exception {
    TlsServer tls = TlsServer.load(TestCertificates.GOOD, false);
    try (TestServer server =
            TestServer.with(new MemoryBackend(SIZE))
                .tls(new TlsPolicy(Optional.of(tls), true))
                .handshakeTimeout(Duration.ofSeconds(3))
                .start();
        RawClient silent = server.connect();
        RawClient begun = server.connect()) {
      silent.hello(3).option(RawClient.STARTTLS).expectAck(RawClient.STARTTLS);
      begun.hello(3).option(RawClient.STARTTLS).expectAck(RawClient.STARTTLS);
      begun.send((byte) 0x16, (byte) 3, (byte) 1, (byte) 2);
      silent.expectEnd();
      begun.expectEnd();
      Eventually.isTrue("each is logged", () -> Log.at(Level.WARN).size() >= 2);
      assertThat(Log.at(Level.WARN))
          .hasSize(2)
          .allSatisfy(line -> assertThat(line).contains("no export"));
    }
  }

  /** After every byte of STARTTLS, and of a part of the TLS handshake. */
  @ParameterizedTest
  @EnumSource
  void aClientMayLeaveAnywhere(Leave leave) throws Exception {
    byte[] bytes =
        Bytes.of()
            .raw(RawClient.optionBytes(RawClient.STARTTLS))
            .raw((byte) 0x16, (byte) 3, (byte) 1)
            .u16(200)
            .raw((byte) 1)
            .toArray();
    try (TestServer server = server(true, false)) {
      for (int i = 0; i <= bytes.length; i++) {
        try (RawClient client = server.connect()) {
          client.hello(3).send(java.util.Arrays.copyOf(bytes, Math.min(i, 16)));
          if (i >= 16) {
            client.expectAck(RawClient.STARTTLS);
            client.send(java.util.Arrays.copyOfRange(bytes, 16, i));
          }
          leave.now(client);
        }
      }
      assertThat(Log.at(Level.ERROR)).isEmpty();
    }
  }

  @Test
  void stoppingEndsConnectionsInsideTlsInOrder() throws Exception {
    try (TestServer server = server(false, false);
        RawClient client = server.connect();
        RawClient inTheHandshake = server.connect()) {
      client.hello(3).startTls(StartTlsTest::tls).option(RawClient.GO, RawClient.infoData(""));
      client.expectInfos(RawClient.GO);
      client.write(0, (byte) 1);
      inTheHandshake.hello(3).option(RawClient.STARTTLS).expectAck(RawClient.STARTTLS);
      server.witness().disconnect();
      assertThat(server.stop(Duration.ofMinutes(2))).isTrue();
      client.expectEnd();
      inTheHandshake.expectEnd();
    }
  }
}
