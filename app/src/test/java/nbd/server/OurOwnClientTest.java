package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import nbd.client.ClientSettings;
import nbd.client.NbdClient;
import nbd.client.NbdUri;
import nbd.client.StatusExtent;
import nbd.memory.MemoryBackend;
import nbd.protocol.BaseAllocation;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReplyType;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Completion;
import nbd.storage.Extent;
import nbd.storage.ListedExport;
import nbd.storage.Operation;
import nbd.testing.BitmapBackend;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The project's client, connected to the project's server. */
@Timeout(300)
final class OurOwnClientTest {
  private static final int SIZE = 64 << 20;

  private static NbdUri uri(TestServer server) {
    SocketAddress address = server.address();
    return address instanceof UnixDomainSocketAddress unix
        ? NbdUri.unix(unix.getPath(), "")
        : NbdUri.tcp(
            ((InetSocketAddress) address).getAddress(),
            ((InetSocketAddress) address).getPort(),
            "");
  }

  private static NbdClient open(TestServer server, String export) throws IOException {
    return NbdClient.connect(uri(server), export, ClientSettings.DEFAULT);
  }

  @Test
  void everyCommandButBlockStatusCanBeBegun() throws IOException {
    int bytes = 4096;
    CommandFlags fua = CommandFlags.of(CommandFlag.FUA);
    List<Operation> operations =
        List.of(
            Operation.write(ByteBuffer.allocateDirect(bytes), 0, fua),
            Operation.onRange(Command.WRITE_ZEROES, bytes, bytes, fua),
            Operation.onRange(Command.TRIM, 0, bytes, CommandFlags.NONE),
            Operation.onRange(Command.CACHE, 0, bytes, CommandFlags.NONE),
            Operation.read(ByteBuffer.allocateDirect(bytes), bytes),
            Operation.flush(),
            Operation.flushForFua());
    CountDownLatch ended = new CountDownLatch(operations.size());
    ConcurrentLinkedQueue<IOException> failures = new ConcurrentLinkedQueue<>();
    Completion end =
        failure -> {
          if (failure != null) {
            failures.add(failure);
          }
          ended.countDown();
        };
    try (TestServer server = TestServer.of(new MemoryBackend(SIZE));
        NbdClient client = open(server, "")) {
      byte[] data = Bytes.random(1, 2 * bytes);
      client.write(ByteBuffer.allocateDirect(data.length).put(data).flip(), 0, CommandFlags.NONE);
      for (Operation operation : operations) {
        assertThat(client.begin(operation, end)).as("%s", operation.command()).isTrue();
      }
      assertThat(client.begin(Operation.extents(0, bytes, 1), end)).isFalse();
      client.push();
      Eventually.await(ended);
      assertThat(failures).isEmpty();
      ByteBuffer zeroes = ByteBuffer.allocate(2 * bytes);
      client.read(zeroes, 0);
      assertThat(zeroes.array()).containsOnly(0);
    }
  }

  @Test
  void aDirtyBitmapIsListedSelectedAndRead() throws IOException {
    String name = "qemu:dirty-bitmap:day";
    List<String> both = List.of(name, BaseAllocation.NAME);
    try (TestServer server = TestServer.of(new BitmapBackend(new MemoryBackend(SIZE), "day"));
        NbdClient client = NbdClient.connect(uri(server), "", ClientSettings.DEFAULT, both)) {
      assertThat(NbdClient.listContexts(uri(server), "", ClientSettings.DEFAULT))
          .containsExactly(BaseAllocation.NAME, name);
      assertThat(client.export().contexts()).containsOnlyKeys(both);
      int page = BitmapBackend.PAGE;
      assertThat(client.status(name, page, 3L * page, 9))
          .containsExactly(new StatusExtent(2L * page, 0), new StatusExtent(page, 1));
      assertThat(client.status(name, 7, 3L * page, 1))
          .containsExactly(new StatusExtent(page - 7, 1));
      assertThat(client.extents(0, SIZE, 9)).containsExactly(Extent.hole(SIZE));
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void whatIsWrittenIsReadOnAnotherConnection(boolean tcp) throws IOException {
    try (TestServer server = TestServer.with(new MemoryBackend(SIZE)).tcp(tcp).start();
        NbdClient one = open(server, "");
        NbdClient other = open(server, "")) {
      assertThat(one.export().size()).isEqualTo(SIZE);
      assertThat(one.export().has(TransmissionFlag.SEND_FUA)).isTrue();
      byte[] data = Bytes.random(1, 32 << 20);
      one.write(ByteBuffer.allocateDirect(data.length).put(data).flip(), 4096, CommandFlags.NONE);
      one.flush();
      ByteBuffer into = ByteBuffer.allocateDirect(data.length);
      other.read(into, 4096);
      assertThat(into.flip()).isEqualTo(ByteBuffer.wrap(data));
      other.zero(4096, 8192, CommandFlags.of(CommandFlag.FUA));
      other.trim(1 << 20, 1 << 20, CommandFlags.NONE);
      other.cache(0, SIZE);
      ByteBuffer zeroes = ByteBuffer.allocate(8192);
      one.read(zeroes, 4096);
      assertThat(zeroes.array()).containsOnly(0);
    }
  }

  @Test
  void extentsCoverTheRange() throws IOException {
    try (TestServer server = TestServer.of(new MemoryBackend(SIZE));
        NbdClient client = open(server, "")) {
      long covered = 0;
      for (Extent extent : client.extents(0, SIZE, 10)) {
        covered += extent.length();
      }
      assertThat(covered).isEqualTo(SIZE);
    }
  }

  @Test
  void anErrorOfTheStorageIsTheCallers() throws IOException {
    FakeBackend failing = new FakeBackend(4096);
    failing.hook(
        call -> {
          if (call.offset() == 512) {
            throw new NbdException(NbdError.ENOSPC, "full");
          }
        });
    try (TestServer server = TestServer.of(failing);
        NbdClient client = open(server, "")) {
      server.expectErrors();
      assertThatThrownBy(() -> client.write(ByteBuffer.allocate(512), 512, CommandFlags.NONE))
          .isInstanceOfSatisfying(
              NbdException.class,
              failure -> assertThat(failure.error()).isEqualTo(NbdError.ENOSPC));
      client.write(ByteBuffer.allocate(512), 0, CommandFlags.NONE);
      assertThatThrownBy(() -> client.read(ByteBuffer.allocate(1), 4096))
          .isInstanceOfSatisfying(
              NbdException.class,
              failure -> assertThat(failure.error()).isEqualTo(NbdError.EINVAL));
    }
  }

  @Test
  void exportsAreListedAndOthersRefused() throws IOException {
    try (TestServer server =
        TestServer.with(new MemoryBackend(512)).names("a", "b").description("two").start()) {
      assertThat(NbdClient.list(uri(server), ClientSettings.DEFAULT))
          .isEqualTo(List.of(new ListedExport("a", "two"), new ListedExport("b", "two")));
      assertThatThrownBy(() -> open(server, "c").close())
          .isInstanceOfSatisfying(
              OptionException.class,
              refused -> assertThat(refused.type()).isEqualTo(OptionReplyType.ERR_UNKNOWN))
          .hasMessageContaining("export \"c\" is refused: ERR_UNKNOWN: ");
      try (NbdClient client = open(server, "b")) {
        assertThat(client.export().description()).isEqualTo("two");
      }
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void manyThreadsShareAConnection(boolean tcp) throws Exception {
    long seed = Long.getLong("nbd.seed", new Random().nextLong());
    int area = 1 << 20;
    try (TestServer server = TestServer.with(new MemoryBackend(SIZE)).tcp(tcp).start();
        NbdClient client = open(server, "")) {
      ConcurrentLinkedQueue<Throwable> failures = new ConcurrentLinkedQueue<>();
      List<Thread> threads = new ArrayList<>();
      for (int i = 0; i < 32; i++) {
        Random random = new Random(seed + i);
        int base = i * area;
        threads.add(
            Thread.ofVirtual()
                .start(
                    () -> {
                      try {
                        readBack(client, random, base, area);
                      } catch (Throwable failure) {
                        failures.add(failure);
                      }
                    }));
      }
      for (Thread thread : threads) {
        thread.join();
      }
      assertThat(failures).as("seed %d", seed).isEmpty();
    }
  }

  private static void readBack(NbdClient client, Random random, int base, int area)
      throws IOException {
    byte[] model = new byte[area];
    for (int i = 0; i < 300; i++) {
      int length = 1 + random.nextInt(random.nextInt(20) == 0 ? 300_000 : 8000);
      int offset = random.nextInt(area - length);
      ByteBuffer buffer = ByteBuffer.allocateDirect(length);
      if (random.nextBoolean()) {
        byte[] data = Bytes.random(random.nextLong(), length);
        System.arraycopy(data, 0, model, offset, length);
        client.write(ByteBuffer.wrap(data), base + offset, CommandFlags.NONE);
      }
      client.read(buffer, base + offset);
      assertThat(buffer.flip().equals(ByteBuffer.wrap(model, offset, length))).isTrue();
    }
  }
}
