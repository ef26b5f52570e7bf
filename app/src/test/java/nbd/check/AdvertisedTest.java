package nbd.check;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.locks.LockSupport;
import nbd.check.FaultyStorage.Fault;
import nbd.check.Finding.Kind;
import nbd.check.Finding.Severity;
import nbd.client.ClientSettings;
import nbd.client.NbdClient;
import nbd.client.NbdUri;
import nbd.memory.MemoryBackend;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.server.TestServer;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.testing.Bytes;
import nbd.testing.FakeBackend;
import nbd.testing.HookedBackend;
import nbd.testing.RawClient;
import nbd.testing.ScriptedServer;
import nbd.testing.ScriptedServer.Asked;
import nbd.testing.ScriptedServer.Peer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The findings of {@link Advertised} about servers with one fault each, and about others. */
@Timeout(300)
final class AdvertisedTest {
  private static final int SIZE = 4 << 20;

  private static NbdUri uri(TestServer server) {
    return NbdUri.unix(((UnixDomainSocketAddress) server.address()).getPath(), "");
  }

  private static List<Finding> examine(Backend storage) throws IOException {
    try (TestServer server = TestServer.of(storage)) {
      server.expectErrors();
      return Advertised.examine(Target.open(uri(server), ClientSettings.DEFAULT));
    }
  }

  private static List<Finding> examine(ScriptedServer.Script server) throws IOException {
    try (ScriptedServer played = ScriptedServer.always(server)) {
      return Advertised.examine(Target.open(NbdUri.parse(played.uri()), ClientSettings.DEFAULT));
    }
  }

  /** Checks that there is one finding, of this kind, whose sentence has these words. */
  private static void expect(
      List<Finding> findings, Severity severity, Kind kind, String... words) {
    assertThat(findings)
        .singleElement()
        .satisfies(
            found -> {
              assertThat(found.severity()).isEqualTo(severity);
              assertThat(found.kind()).isEqualTo(kind);
              assertThat(found.sentence()).contains(words).doesNotContain("nbd+unix");
            });
  }

  /** A change of the operations of one command. */
  @FunctionalInterface
  private interface Change {
    void perform(Handle next, Operation operation) throws IOException;
  }

  private static Backend changed(Command command, Change change) {
    return new HookedBackend(
        new MemoryBackend(SIZE),
        (next, operation, patience, end) -> {
          if (operation.command() != command) {
            return next.perform(operation, patience, end);
          }
          change.perform(next, operation);
          return Outcome.DONE;
        });
  }

  @Test
  void nothingIsFoundInStorageThatKeepsItsWord() throws IOException {
    assertThat(examine(new MemoryBackend(SIZE))).isEmpty();
    assertThat(examine(new FaultyStorage(Fault.NONE))).isEmpty();
    assertThat(examine(new WireServer())).isEmpty();
  }

  @ParameterizedTest
  @ValueSource(ints = {4096, 1 << 16})
  void nothingIsFoundInStorageOfLargeBlocks(int minimum) throws IOException {
    BlockSizes sizes = new BlockSizes(minimum, 1 << 16, 32 << 20);
    // It writes zeroes into an array, which is not fast, least of all when memory is collected.
    Capabilities capabilities = FakeBackend.all().without(Capability.FAST_ZERO);
    assertThat(examine(new FakeBackend(8 << 20, sizes, capabilities))).isEmpty();
  }

  @Test
  void nothingChangesOutsideOfTheRegion() throws IOException {
    byte[] before = Bytes.random(1, SIZE);
    try (TestServer server = TestServer.of(new MemoryBackend(SIZE));
        NbdClient client = NbdClient.connect(uri(server), "", ClientSettings.DEFAULT)) {
      client.write(ByteBuffer.wrap(before), 0, CommandFlags.NONE);
      Target target = Target.open(uri(server), ClientSettings.DEFAULT, 512, 128 << 10);
      assertThat(Advertised.examine(target)).isEmpty();
      byte[] after = new byte[SIZE];
      client.read(ByteBuffer.wrap(after), 0);
      int end = 512 + (128 << 10);
      assertThat(Arrays.mismatch(before, after)).isBetween(512, end - 1);
      assertThat(Arrays.equals(before, end, SIZE, after, end, SIZE)).isTrue();
    }
  }

  // Storage that does not do as it says.

  @Test
  void aWriteWithFuaThatOthersDoNotSee() throws IOException {
    expect(
        examine(new FaultyStorage(Fault.FUA_IGNORED)),
        Severity.BROKEN,
        Kind.FUA,
        "another connection does not see a write with FUA");
  }

  @Test
  void aTrimThatTouchesItsNeighbours() throws IOException {
    Backend storage =
        changed(
            Command.TRIM,
            (next, trim) -> next.trim(trim.offset(), trim.length() + 512, trim.flags()));
    assertThat(examine(storage))
        .isNotEmpty()
        .allSatisfy(
            found -> {
              assertThat(found.kind()).isEqualTo(Kind.TRIM);
              assertThat(found.sentence()).contains("changes data beside its range");
            });
  }

  @Test
  void aTrimThatIsRefused() throws IOException {
    Backend storage =
        changed(
            Command.TRIM,
            (next, trim) -> {
              throw new NbdException(NbdError.EIO, "broken");
            });
    assertThat(examine(storage))
        .isNotEmpty()
        .allSatisfy(found -> assertThat(found.kind()).isEqualTo(Kind.TRIM));
  }

  @Test
  void zeroesThatAreNone() throws IOException {
    assertThat(examine(new FaultyStorage(Fault.NOT_ZEROED)))
        .isNotEmpty()
        .allSatisfy(
            found -> {
              assertThat(found.kind()).isEqualTo(Kind.ZERO);
              assertThat(found.sentence()).contains("leaves data that is not zero");
            });
  }

  @Test
  void fastZeroesThatAreSlow() throws IOException {
    Backend storage =
        changed(
            Command.WRITE_ZEROES,
            (next, zero) -> {
              if (zero.flags().has(CommandFlag.FAST_ZERO)) {
                LockSupport.parkNanos(100_000_000);
              }
              next.run(zero);
            });
    expect(examine(storage), Severity.WARNING, Kind.FAST_ZERO, "slower than writing");
  }

  @Test
  void fastZeroesThatAreRefusedTooLate() throws IOException {
    Backend storage =
        changed(
            Command.WRITE_ZEROES,
            (next, zero) -> {
              next.run(zero);
              if (zero.flags().has(CommandFlag.FAST_ZERO)) {
                throw new NbdException(NbdError.ENOTSUP, "not fast");
              }
            });
    expect(examine(storage), Severity.BROKEN, Kind.FAST_ZERO, "has changed data");
  }

  @Test
  void extentsThatLie() throws IOException {
    assertThat(examine(new FaultyStorage(Fault.LYING_EXTENTS)))
        .isNotEmpty()
        .allSatisfy(found -> assertThat(found.kind()).isIn(Kind.BLOCK_STATUS, Kind.ZERO))
        .anySatisfy(
            found -> assertThat(found.sentence()).contains("says zero where there is data"));
  }

  @Test
  void anEndThatCannotBeRead() throws IOException {
    Backend storage =
        changed(
            Command.READ,
            (next, read) -> {
              if (read.offset() + read.length() == SIZE && read.length() < SIZE) {
                throw new NbdException(NbdError.EIO, "nothing there");
              }
              next.run(read);
            });
    expect(examine(storage), Severity.BROKEN, Kind.SIZE, "the last 1 bytes", "EIO");
  }

  @Test
  void aBlockSizeThatIsNotKept() throws IOException {
    Backend storage =
        changed(
            Command.WRITE,
            (next, write) -> {
              if (write.length() == 1) {
                throw new NbdException(NbdError.EINVAL, "too short");
              }
              next.run(write);
            });
    expect(examine(storage), Severity.BROKEN, Kind.BLOCK_SIZE, "the minimum block size, 1,");
  }

  @Test
  void aFlushThatFails() throws IOException {
    Backend storage =
        changed(
            Command.FLUSH,
            (next, flush) -> {
              throw new NbdException(NbdError.EIO, "broken");
            });
    assertThat(examine(storage))
        .anySatisfy(
            found -> {
              assertThat(found.kind()).isEqualTo(Kind.FLUSH);
              assertThat(found.sentence()).contains("FLUSH fails: EIO");
            });
  }

  @Test
  void aConnectionLimitThatContradictsMultiConn() throws IOException {
    try (TestServer server = TestServer.with(new MemoryBackend(SIZE)).maxConnections(1).start()) {
      expect(
          Advertised.examine(Target.open(uri(server), ClientSettings.DEFAULT)),
          Severity.BROKEN,
          Kind.CONNECTIONS,
          "multi-conn is advertised, but connection 2");
    }
  }

  // Servers that do not speak as they should.

  @Test
  void informationThatContradictsGo() throws IOException {
    expect(
        examine(
            new WireServer() {
              @Override
              void info(Peer client, int option) throws IOException {
                info(client, option, option == ScriptedServer.GO ? SIZE : 0, "a disk");
              }
            }),
        Severity.WARNING,
        Kind.INFO,
        "INFO: size 0");
  }

  @Test
  void aListThatContradictsGo() throws IOException {
    expect(
        examine(
            new WireServer() {
              @Override
              void list(Peer client) throws IOException {
                byte[] entry = ScriptedServer.listed("", "another disk");
                client.reply(ScriptedServer.LIST, ScriptedServer.SERVER, entry);
              }
            }),
        Severity.WARNING,
        Kind.LIST,
        "the list: description another disk");
  }

  @Test
  void oneExtentThatIsTwo() throws IOException {
    expect(
        examine(
            new WireServer() {
              @Override
              void status(Peer client, Asked asked) throws IOException {
                if (asked.flags() == RawClient.REQ_ONE) {
                  status(client, asked, 512, asked.length() - 512);
                } else {
                  super.status(client, asked);
                }
              }
            }),
        Severity.WARNING,
        Kind.REQ_ONE,
        "is answered with 2 extents");
  }

  @Test
  void extentsBehindTheRange() throws IOException {
    assertThat(
            examine(
                new WireServer() {
                  @Override
                  void status(Peer client, Asked asked) throws IOException {
                    if (asked.flags() == RawClient.REQ_ONE) {
                      super.status(client, asked);
                    } else {
                      status(client, asked, asked.length(), 512);
                    }
                  }
                }))
        .isNotEmpty()
        .allSatisfy(found -> assertThat(found.kind()).isIn(Kind.BLOCK_STATUS, Kind.ZERO))
        .anySatisfy(found -> assertThat(found.sentence()).contains("begins 0 bytes behind them"));
  }

  @Test
  void aWholeThatComesInPieces() throws IOException {
    expect(
        examine(
            new WireServer() {
              @Override
              void data(Peer client, Asked asked, byte[] data) throws IOException {
                int half = data.length / 2;
                if ((asked.flags() & RawClient.DF) != 0) {
                  client.chunk(asked, false, 1, piece(asked, data, 0, half));
                  client.chunk(asked, true, 1, piece(asked, data, half, data.length));
                } else {
                  super.data(client, asked, data);
                }
              }
            }),
        Severity.BROKEN,
        Kind.DF,
        "in several pieces");
  }

  @Test
  void anErrorOfAnUndefinedNumber() throws IOException {
    assertThat(
            examine(
                new WireServer() {
                  @Override
                  int error(Asked asked) {
                    return super.error(asked) == 28 ? 122 : super.error(asked);
                  }
                }))
        .hasSize(2)
        .allSatisfy(found -> assertThat(found.kind()).isEqualTo(Kind.ERROR_NUMBER))
        .anySatisfy(
            found -> assertThat(found.sentence()).contains("122, which the protocol does not"))
        .anySatisfy(found -> assertThat(found.sentence()).contains("instead of ENOSPC"));
  }

  @Test
  void anErrorOfTheWrongNumber() throws IOException {
    expect(
        examine(
            new WireServer() {
              @Override
              int error(Asked asked) {
                boolean isBeyond = asked.type() == RawClient.READ && asked.offset() == SIZE;
                return isBeyond ? RawClient.EIO : super.error(asked);
              }
            }),
        Severity.WARNING,
        Kind.ERROR_NUMBER,
        "beyond the end, is refused with EIO (no) instead of EINVAL");
  }

  @Test
  void aFlagThatIsNotUnderstoodAndNotRefused() throws IOException {
    expect(
        examine(
            new WireServer() {
              @Override
              int error(Asked asked) {
                return asked.flags() == 0x4000 ? 0 : super.error(asked);
              }
            }),
        Severity.WARNING,
        Kind.ERROR_NUMBER,
        "READ with an undefined flag, which is not advertised, succeeds");
  }

  @Test
  void aWriteBeyondTheEndThatSucceeds() throws IOException {
    expect(
        examine(
            new WireServer() {
              @Override
              void answer(Peer client, Asked asked) throws IOException {
                if (asked.type() == RawClient.WRITE && asked.offset() == SIZE) {
                  client.done(asked);
                } else {
                  super.answer(client, asked);
                }
              }
            }),
        Severity.BROKEN,
        Kind.SIZE,
        "WRITE of 512 bytes at 1048576, beyond the end, succeeds");
  }

  @Test
  void aConnectionThatEndsInsteadOfAnError() throws IOException {
    expect(
        examine(
            new WireServer() {
              @Override
              void answer(Peer client, Asked asked) throws IOException {
                if (asked.type() == RawClient.CACHE) {
                  throw new IOException("a fault");
                }
                super.answer(client, asked);
              }
            }),
        Severity.WARNING,
        Kind.PROTOCOL,
        "CACHE, which is not advertised, is not refused, but ends the connection");
  }

  @Test
  void aReplyOutOfTheProtocol() throws IOException {
    assertThat(
            examine(
                new WireServer() {
                  @Override
                  void data(Peer client, Asked asked, byte[] data) throws IOException {
                    client.simple(asked, 0, data);
                  }
                }))
        .isNotEmpty()
        .allSatisfy(found -> assertThat(found.kind()).isIn(Kind.PROTOCOL, Kind.DF))
        .anySatisfy(
            found ->
                assertThat(found.sentence())
                    .contains("by a simple reply, where chunks were agreed upon"));
  }
}
