package nbd.fuzz;

import static org.assertj.core.api.Assertions.assertThat;

import com.code_intelligence.jazzer.junit.FuzzTest;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Optional;
import nbd.client.FuzzedClient;
import nbd.client.NbdClient;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Extent;
import nbd.storage.LostException;
import nbd.testing.Log;
import nbd.testing.MemorySocket;
import org.tinylog.Level;

/** A client of a server that breaks the protocol: it refuses the answers, and never hangs. */
final class ClientFuzzTest {
  private static final int SIZE = 200_000;
  private static final int GUARD = 16;

  /** The server sends any bytes, from its greeting on. */
  @FuzzTest
  void anyBytesInsteadOfAServerAreAnErrorOrAnExport(byte[] data) {
    Log.clear();
    Choices choices = new Choices(data);
    int what = choices.u8();
    Deque<byte[]> pieces = new ArrayDeque<>();
    pieces.add(choices.rest());
    MemorySocket socket = new MemorySocket(new Talker(pieces), Integer.MAX_VALUE);
    try {
      switch (what >> 2 & 3) {
        case 0 -> assertThat(FuzzedClient.list(socket)).doesNotContainNull();
        case 1 -> assertThat(FuzzedClient.contexts(socket)).doesNotContainNull();
        default -> {
          try (FuzzedClient opened = FuzzedClient.open(socket)) {
            NbdClient client = opened.client();
            assertThat(client.export().size()).isNotNegative();
            if (client.export().size() >= 10) {
              client.read(ByteBuffer.allocate(10), 0);
            }
          }
        }
      }
    } catch (IOException refused) {
      assertThat(refused.getMessage()).isNotBlank();
    }
    assertThat(Log.at(Level.ERROR)).as("errors in the log").isEmpty();
  }

  /** A server that sends given bytes, and ignores the client. */
  private record Talker(Deque<byte[]> pieces) implements MemorySocket.Peer {
    @Override
    public Optional<byte[]> send() {
      return Optional.of(pieces.isEmpty() ? new byte[0] : pieces.remove());
    }

    @Override
    public void receive(byte[] bytes) {
      // Ignored.
    }
  }

  @FuzzTest
  void simpleRepliesAreBelievedIfTheyMayBe(byte[] data) throws IOException {
    talk(new Choices(data), false, false);
  }

  @FuzzTest
  void chunksAreBelievedIfTheyMayBe(byte[] data) throws IOException {
    talk(new Choices(data), true, false);
  }

  @FuzzTest
  void extendedChunksAreBelievedIfTheyMayBe(byte[] data) throws IOException {
    talk(new Choices(data), true, true);
  }

  private static void talk(Choices choices, boolean structured, boolean extended)
      throws IOException {
    Log.clear();
    int maximum = choices.of(1 << 20, 4096, 65_536);
    HostileServer server = new HostileServer(choices, structured, extended, SIZE, maximum);
    MemorySocket socket = new MemorySocket(server, choices.of(Integer.MAX_VALUE, 1, 13, 4096));
    try (FuzzedClient opened = FuzzedClient.open(socket)) {
      NbdClient client = opened.client();
      for (int i = 0; i < 20 && choices.hasMore() && server.isHonest(); i++) {
        call(choices, client, server);
      }
      if (!server.isHonest()) {
        // The connection ends, whether the client has noticed already or notices now.
        call(choices, client, server);
      }
    }
    assertThat(Log.at(Level.ERROR)).as("errors in the log").isEmpty();
  }

  private static void call(Choices choices, NbdClient client, HostileServer server) {
    int kind = choices.u8();
    int offset = choices.u16();
    int length = Math.clamp(choices.u16(), 1, SIZE - offset);
    server.takeError();
    try {
      switch (kind % 8) {
        case 0, 1, 2 -> {
          byte[] buffer = new byte[GUARD + length + GUARD];
          client.read(ByteBuffer.wrap(buffer, GUARD, length), offset);
          if (server.isHonest()) {
            byte[] read = java.util.Arrays.copyOfRange(buffer, GUARD, GUARD + length);
            assertThat(read).isEqualTo(server.told(offset, length));
          }
          for (int i = 0; i < GUARD; i++) {
            assertThat(buffer[i] | buffer[GUARD + length + i]).as("beside the buffer").isZero();
          }
        }
        case 3 -> client.write(ByteBuffer.allocate(length), offset, CommandFlags.NONE);
        case 4 -> client.flush();
        case 5 -> client.trim(offset, length, CommandFlags.NONE);
        case 6 -> client.zero(offset, length, CommandFlags.NONE);
        default -> map(client, offset, length, 1 + choices.u8() % 4);
      }
      if (server.isHonest()) {
        assertThat(server.takeError()).as("an error that was told").isZero();
      }
    } catch (LostException lost) {
      assertThat(server.isHonest()).as("%s", lost.getMessage()).isFalse();
    } catch (NbdException told) {
      if (server.isHonest()) {
        assertThat(told.error()).isEqualTo(NbdError.of(server.takeError()));
      }
    } catch (IOException other) {
      throw new AssertionError(other);
    }
  }

  private static void map(NbdClient client, long offset, long length, int most) throws IOException {
    List<Extent> extents = client.extents(offset, length, most);
    assertThat(extents).isNotEmpty().hasSizeLessThanOrEqualTo(most);
    long end = offset;
    for (int i = 0; i < extents.size(); i++) {
      assertThat(i > 0 && extents.get(i).isLike(extents.get(i - 1))).as("%s", extents).isFalse();
      assertThat(end).as("an extent behind the range").isLessThan(offset + length);
      end += extents.get(i).length();
    }
    assertThat(end).isLessThanOrEqualTo(SIZE);
  }
}
