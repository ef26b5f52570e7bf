package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import nbd.client.ClientSettings;
import nbd.client.ExportInfo;
import nbd.client.NbdClient;
import nbd.client.NbdUri;
import nbd.file.DirectoryBackend;
import nbd.file.FileSettings;
import nbd.filter.FilterBackend;
import nbd.memory.MemoryBackend;
import nbd.protocol.CommandFlags;
import nbd.protocol.OptionException;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Backend;
import nbd.storage.ThreadModel;
import nbd.testing.FakeBackend;
import nbd.testing.TestCertificates;
import nbd.tls.TlsServer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A server that is embedded: its choices, its socket's files and its end. */
final class NbdServerTest {
  private static final int SIZE = 1 << 20;

  @TempDir private Path room;

  @Test
  void withoutChoicesItIsReachedOnAPrivateSocketThatItRemoves() throws IOException {
    Path socket;
    try (NbdServer server = NbdServer.of(new MemoryBackend(SIZE)).start()) {
      socket = server.socket().orElseThrow();
      assertThat(Files.getPosixFilePermissions(socket.getParent()))
          .allMatch(permission -> permission.name().startsWith("OWNER"));
      ExportInfo export = export(server, "");
      assertThat(export.size()).isEqualTo(SIZE);
      assertThat(export.has(TransmissionFlag.CAN_MULTI_CONN)).isTrue();
    }
    assertThat(socket.getParent()).doesNotExist();
  }

  @Test
  void onTcpItHasAFreePortAndAUriWithTheExportsName() throws IOException {
    try (NbdServer server =
        NbdServer.of(new MemoryBackend(SIZE)).tcp(0).exportName("a disk").start()) {
      assertThat(server.uri().toString()).matches("nbd://127\\.0\\.0\\.1:[1-9][0-9]*/a%20disk");
      assertThat(server.socket()).isEmpty();
      assertThat(export(server, "a disk").size()).isEqualTo(SIZE);
      assertThatThrownBy(() -> export(server, "another")).isInstanceOf(OptionException.class);
    }
  }

  @Test
  void onANamedUnixSocketAllOptionsHold() throws IOException {
    Path socket = room.resolve("socket");
    try (NbdServer server =
        NbdServer.of(new MemoryBackend(SIZE))
            .unix(socket)
            .description("a test's")
            .readOnly()
            .maxConnections(1)
            .start()) {
      assertThat(server.uri().toString()).isEqualTo("nbd+unix:///?socket=" + socket);
      ExportInfo export = export(server, "");
      assertThat(export.description()).isEqualTo("a test's");
      assertThat(export.has(TransmissionFlag.READ_ONLY)).isTrue();
      assertThat(export.has(TransmissionFlag.CAN_MULTI_CONN)).isFalse();
    }
    assertThat(socket).doesNotExist();
  }

  @Test
  void storageForOneConnectionAtATimeIsServedSo() throws IOException {
    Backend one =
        new FilterBackend(new MemoryBackend(SIZE)) {
          @Override
          public ThreadModel threadModel() {
            return ThreadModel.SERIALIZE_CONNECTIONS;
          }
        };
    try (NbdServer server = NbdServer.of(one).start()) {
      assertThat(export(server, "").has(TransmissionFlag.CAN_MULTI_CONN)).isFalse();
    }
  }

  @Test
  void storageThatNamesItsExportsServesEachOfThem() throws IOException {
    Files.write(room.resolve("disk"), new byte[512]);
    Backend files = DirectoryBackend.open(room, FileSettings.DEFAULT);
    try (NbdServer server = NbdServer.of(files).start()) {
      assertThat(NbdClient.list(uri(server), ClientSettings.DEFAULT)).hasSize(1);
      assertThat(export(server, "disk").size()).isEqualTo(512);
    }
  }

  @Test
  void clientsWithoutTlsAreRefusedWhereItIsRequired() throws Exception {
    TlsPolicy required =
        new TlsPolicy(Optional.of(TlsServer.load(TestCertificates.GOOD, false)), true);
    try (NbdServer server = NbdServer.of(new MemoryBackend(SIZE)).tcp(0).tls(required).start()) {
      assertThat(server.uri().getScheme()).isEqualTo("nbds");
      NbdUri plain = NbdUri.parse(server.uri().toString().replace("nbds:", "nbd:"));
      assertThatThrownBy(() -> NbdClient.connect(plain, "", ClientSettings.DEFAULT))
          .isInstanceOf(IOException.class)
          .hasMessageContaining("TLS");
    }
  }

  @Test
  void theStorageIsClosedAtTheEndAndLaterClosesDoNothing() throws IOException {
    FakeBackend storage = new FakeBackend(SIZE);
    NbdServer server = NbdServer.of(storage).start();
    try (NbdClient client = NbdClient.connect(uri(server), "", ClientSettings.DEFAULT)) {
      client.write(ByteBuffer.allocate(512).put(0, (byte) 7), 0, CommandFlags.NONE);
      client.flush();
      assertThat(server.connections()).isEqualTo(1);
    }
    server.close();
    server.close();
    assertThat(storage.isClosed()).isTrue();
    assertThat(server.connections()).isZero();
  }

  @Test
  void aLossAtTheEndIsToldToTheOneWhoClosesIt() {
    Backend losing =
        new FilterBackend(new MemoryBackend(SIZE)) {
          @Override
          public void close() throws IOException {
            throw new IOException("the disk is gone");
          }
        };
    NbdServer server = NbdServer.of(losing).start();
    assertThatThrownBy(server::close)
        .isInstanceOf(UncheckedIOException.class)
        .hasMessage("the disk is gone");
  }

  @Test
  void anAddressInUseIsNamedAndTheStorageStaysOpen() throws IOException {
    FakeBackend storage = new FakeBackend(SIZE);
    Path taken = Files.createFile(room.resolve("taken"));
    assertThatThrownBy(() -> NbdServer.of(storage).unix(taken).start())
        .isInstanceOf(UncheckedIOException.class)
        .hasMessageStartingWith("cannot listen on " + taken + ": ");
    assertThatThrownBy(
            () ->
                NbdServer.of(storage)
                    .tcp(InetSocketAddress.createUnresolved("nowhere.invalid", 0))
                    .start())
        .isInstanceOf(UncheckedIOException.class)
        .hasMessage("the address nowhere.invalid is not known");
    assertThat(taken).exists();
    assertThat(storage.isClosed()).isFalse();
  }

  @Test
  void aNegativeLimitIsRefused() {
    NbdServer.Builder builder = NbdServer.of(new MemoryBackend(SIZE));
    assertThatThrownBy(() -> builder.maxConnections(-1))
        .isInstanceOf(IllegalArgumentException.class);
  }

  private static NbdUri uri(NbdServer server) {
    return NbdUri.parse(server.uri().toString());
  }

  private static ExportInfo export(NbdServer server, String name) throws IOException {
    try (NbdClient client = NbdClient.connect(uri(server), name, ClientSettings.DEFAULT)) {
      return client.export();
    }
  }
}
