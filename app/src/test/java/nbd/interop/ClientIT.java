package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import nbd.client.ClientSettings;
import nbd.client.NbdClient;
import nbd.client.NbdUri;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.protocol.OptionException;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Extent;
import nbd.storage.LostException;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.Running;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The project's client with other projects' servers. */
@Timeout(300)
final class ClientIT {
  private static final int SIZE = 64 << 20;

  @TempDir private Path directory;

  @BeforeAll
  static void needPeers() {
    Tools.need("nbdkit");
  }

  private static NbdClient open(UpstreamProcess server) throws IOException {
    return open(server, "");
  }

  private static NbdClient open(UpstreamProcess server, String export) throws IOException {
    return NbdClient.connect(NbdUri.parse(server.uri()), export, ClientSettings.DEFAULT);
  }

  private static byte[] read(NbdClient client, long offset, int length) throws IOException {
    ByteBuffer into = ByteBuffer.allocateDirect(length);
    client.read(into, offset);
    byte[] bytes = new byte[length];
    into.flip().get(bytes);
    return bytes;
  }

  /** Sends every command, and checks the effect with another client. */
  private static void everyCommand(UpstreamProcess server, NbdClient client) throws Exception {
    byte[] large = Bytes.random(1, 32 << 20);
    client.write(ByteBuffer.allocateDirect(large.length).put(large).flip(), 8192, none());
    assertThat(read(client, 8192, large.length)).isEqualTo(large);
    client.write(ByteBuffer.wrap(new byte[4096]), 0, flags(client, CommandFlag.FUA));
    client.flush();
    byte[] pattern = new byte[8192];
    Arrays.fill(pattern, (byte) 0x5a);
    client.write(ByteBuffer.wrap(pattern), 48 << 20, none());
    if (client.export().has(TransmissionFlag.SEND_WRITE_ZEROES)) {
      client.zero(49 << 20, 1 << 20, none());
    }
    if (client.export().has(TransmissionFlag.SEND_TRIM)) {
      client.trim(50 << 20, 1 << 20, none());
    }
    if (client.export().has(TransmissionFlag.SEND_CACHE)) {
      client.cache(0, 1 << 20);
    }
    client.flush();
    Tools.qemuIo(
        server.uri(client.export().name()),
        "read -P 0x5a 48M 8k",
        "read -P 0 49M 1M",
        "write -P 0xa5 52M 64k",
        "flush");
    client.flush();
    Arrays.fill(pattern, (byte) 0xa5);
    assertThat(read(client, 52 << 20, 8192)).isEqualTo(pattern);
    assertThatThrownBy(() -> read(client, SIZE, 512)).isInstanceOf(NbdException.class);
    assertThat(read(client, 48 << 20, 1)).as("it goes on").containsExactly(0x5a);
  }

  private static CommandFlags none() {
    return CommandFlags.NONE;
  }

  private static CommandFlags flags(NbdClient client, CommandFlag fua) {
    return client.export().has(TransmissionFlag.SEND_FUA) ? CommandFlags.of(fua) : none();
  }

  @Test
  void nbdkitOnAUnixSocket() throws Exception {
    try (UpstreamProcess server = UpstreamProcess.nbdkit(directory, "memory", "" + SIZE);
        NbdClient client = open(server)) {
      assertThat(client.export().structuredReplies()).isTrue();
      assertThat(client.export().tellsExtents()).isTrue();
      everyCommand(server, client);
      assertThat(extents(client)).isEqualTo(map(server, client));
    }
  }

  @Test
  void nbdkitOnTcpWithSimpleReplies() throws Exception {
    try (UpstreamProcess server =
            UpstreamProcess.nbdkitTcp(directory, "--no-sr", "memory", "" + SIZE);
        NbdClient client = open(server)) {
      assertThat(client.export().structuredReplies()).isFalse();
      everyCommand(server, client);
    }
  }

  @Test
  void nbdkitWithAnOldHandshake() throws Exception {
    try (UpstreamProcess server =
            UpstreamProcess.nbdkit(directory, "--mask-handshake=0", "memory", "" + SIZE);
        NbdClient client = open(server)) {
      assertThat(client.export().fixedNewstyle()).isFalse();
      everyCommand(server, client);
    }
  }

  @Test
  void nbdkitWithTheOldestHandshakeIsRefused() throws Exception {
    try (UpstreamProcess server = UpstreamProcess.nbdkit(directory, "-o", "memory", "1M")) {
      assertThatThrownBy(() -> open(server).close()).hasMessageContaining("oldstyle");
    }
  }

  @Test
  void qemuNbdAndItsExtents() throws Exception {
    Tools.need("qemu-nbd");
    Path image = sparse("qemu.img");
    try (UpstreamProcess server =
            UpstreamProcess.qemuNbd(
                directory, "-e", "8", "-x", "disk", "-D", "a disk", image.toString());
        NbdClient client = open(server, "disk")) {
      assertThat(client.export().description()).isEqualTo("a disk");
      assertThat(client.export().serverBlockSizes()).isPresent();
      List<Extent> extents = extents(client);
      assertThat(extents).hasSizeGreaterThan(2).isEqualTo(map(server, client));
      everyCommand(server, client);
      assertThatThrownBy(() -> open(server, "no").close())
          .isInstanceOf(OptionException.class)
          .hasMessageContaining("ERR_UNKNOWN");
    }
  }

  @Test
  void nbdServer() throws Exception {
    Tools.need("nbd-server");
    try (UpstreamProcess server = UpstreamProcess.nbdServer(directory, sparse("old.img"))) {
      try (NbdClient client = open(server, "disk")) {
        everyCommand(server, client);
      }
      assertThat(NbdClient.list(NbdUri.parse(server.uri()), ClientSettings.DEFAULT))
          .extracting("name")
          .contains("disk");
    }
  }

  /** Makes an image of data and holes in turn. */
  private Path sparse(String name) throws IOException {
    Path image = directory.resolve(name);
    try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
      file.setLength(SIZE);
      for (int at = 1 << 20; at < SIZE; at += 8 << 20) {
        file.seek(at);
        file.write(Bytes.random(at, 1 << 20));
      }
    }
    return image;
  }

  /** Asks for all extents, a few at a time. */
  private static List<Extent> extents(NbdClient client) throws IOException {
    List<Extent> all = new ArrayList<>();
    for (long offset = 0; offset < client.export().size(); ) {
      for (Extent extent : client.extents(offset, client.export().size() - offset, 3)) {
        offset += extent.length();
        extent.appendTo(all);
      }
    }
    return all;
  }

  /** Asks nbdinfo for all extents. */
  private static List<Extent> map(UpstreamProcess server, NbdClient client) throws Exception {
    return Tools.run("nbdinfo", "--map", server.uri(client.export().name()))
        .ok()
        .out()
        .lines()
        .map(line -> line.strip().split("\\s+"))
        .map(
            column -> {
              int type = Integer.parseInt(column[2]);
              return new Extent(Long.parseLong(column[1]), (type & 1) != 0, (type & 2) != 0);
            })
        .toList();
  }

  @Test
  void aPatternIsReadByManyThreadsAtATime() throws Exception {
    for (String replies : new String[] {"-f", "--no-sr"}) {
      try (UpstreamProcess server = UpstreamProcess.nbdkit(directory, replies, "pattern", "1G");
          NbdClient client = open(server)) {
        long seed = Long.getLong("nbd.seed", new Random().nextLong());
        List<Running> readers = new ArrayList<>();
        for (int i = 0; i < 32; i++) {
          Random random = new Random(seed + i);
          readers.add(Running.start(() -> readPattern(client, random)));
        }
        for (Running reader : readers) {
          assertThatCode(reader::join).as("seed %d", seed).doesNotThrowAnyException();
        }
      }
    }
  }

  /** Reads at random: each eight bytes are their own offset. */
  private static void readPattern(NbdClient client, Random random) throws IOException {
    for (int i = 0; i < 100; i++) {
      int words = 1 + random.nextInt(random.nextInt(10) == 0 ? 40_000 : 1000);
      long offset = 8L * random.nextInt((1 << 27) - words);
      ByteBuffer into = ByteBuffer.allocateDirect(8 * words);
      client.read(into, offset);
      into.flip();
      for (long at = offset; into.hasRemaining(); at += 8) {
        assertThat(into.getLong()).isEqualTo(at);
      }
    }
  }

  @Test
  void aSparseExportReadsAsNbdcopyCopiesIt() throws Exception {
    Tools.need("nbdcopy");
    try (UpstreamProcess server =
            UpstreamProcess.nbdkit(directory, "sparse-random", "16M", "seed=1", "percent=30");
        NbdClient client = open(server)) {
      Path copy = directory.resolve("copy");
      Tools.run("nbdcopy", server.uri(), copy.toString()).ok();
      assertThat(read(client, 0, 16 << 20)).isEqualTo(Files.readAllBytes(copy));
      assertThat(extents(client)).isEqualTo(map(server, client));
    }
  }

  @Test
  void aReadThatFailsInTheServerFailsHereAndTheNextOneDoesNot() throws Exception {
    String script =
        "pread=if [ $4 -ge 4096 ]; then echo ENOMEM broken >&2; exit 1; fi; "
            + "dd if=/dev/zero bs=$3 count=1 2>/dev/null";
    for (String replies : new String[] {"-f", "--no-sr"}) {
      try (UpstreamProcess server =
              UpstreamProcess.nbdkit(directory, replies, "eval", "get_size=echo 1M", script);
          NbdClient client = open(server)) {
        for (int i = 0; i < 3; i++) {
          assertThatThrownBy(() -> read(client, 4096, 512))
              .isInstanceOfSatisfying(
                  NbdException.class,
                  failure -> assertThat(failure.error()).isEqualTo(NbdError.ENOMEM));
          assertThat(read(client, 0, 512)).containsOnly(0);
        }
      }
    }
  }

  @Test
  void aServerThatIsKilledLosesEverything() throws Exception {
    try (UpstreamProcess server =
            UpstreamProcess.nbdkit(directory, "--filter=delay", "memory", "1M", "rdelay=60");
        NbdClient client = open(server)) {
      Running reader = Running.start(() -> read(client, 0, 512));
      Eventually.isTrue("it waits", () -> reader.thread().getState() == Thread.State.WAITING);
      server.kill();
      assertThatThrownBy(reader::join).isInstanceOf(LostException.class);
      assertThatThrownBy(client::flush).isInstanceOf(LostException.class);
    }
  }
}
