package nbd.file;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.filter.FuaFilter;
import nbd.filter.FuaMode;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.multiconn.TrackDirty;
import nbd.posix.Errno;
import nbd.posix.PosixException;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.testing.Model;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** A loss of power at any moment, which data must survive that a client was told is durable. */
@Timeout(300)
@SuppressWarnings("ThreadPriorityCheck") // yields for the sake of more interleavings
final class PowerLossTest {
  private static final int SIZE = 2048;
  private static final int CLIENTS = 4;
  private static final int COMMANDS = 150;
  private static final int ROUNDS = 8;

  private final long seed = Model.seed();
  private final AtomicInteger numbers = new AtomicInteger();

  private static FakeDisk.Sync good() {
    return number -> Thread.yield();
  }

  @Test
  void whatIsFlushedSurvivesEveryCut() throws Exception {
    for (int round = 0; round < ROUNDS; round++) {
      FakeDisk disk = new FakeDisk(SIZE, good());
      int flushes = use(disk, round);
      assertThat(flushes).as("flushes and FUAs that succeeded").isGreaterThan(COMMANDS / 4);
      assertThat(PowerLoss.find(disk.events(), SIZE)).as(said(round)).isEmpty();
    }
  }

  @Test
  void afterAFlushThatFailedNothingIsPromisedAnyMore() throws Exception {
    for (int round = 0; round < ROUNDS; round++) {
      int fails = 1 + round * 3;
      FakeDisk disk =
          new FakeDisk(
              SIZE,
              number -> {
                Thread.yield();
                if (number == fails) {
                  throw new PosixException("fdatasync", Errno.EIO, "disk.img");
                }
              });
      use(disk, round);
      assertThat(disk.events()).anyMatch(FakeDisk.Event.SyncFails.class::isInstance);
      assertThat(PowerLoss.find(disk.events(), SIZE)).as(said(round)).isEmpty();
    }
  }

  /** Shows that the search finds a broken promise. */
  @Test
  void aDiskThatLiesIsFoundOut() throws Exception {
    FakeDisk disk =
        new FakeDisk(SIZE, good()) {
          @Override
          void happened(Event event) {
            if (!(event instanceof Event.Stored)) {
              super.happened(event);
            }
          }
        };
    use(disk, 0);
    assertThat(PowerLoss.find(disk.events(), SIZE)).as(said(0)).isPresent();
  }

  private String said(int round) {
    return "seed %d (-Dnbd.seed), round %d".formatted(seed, round);
  }

  /**
   * Runs clients with random commands, and returns the number of promises made to them. All are
   * connected before the first command: a client that comes when all others have gone is told of
   * their losses once, by its first flush, and its next one may succeed.
   */
  private int use(FakeDisk disk, int round) throws Exception {
    MultiConnSettings settings =
        new MultiConnSettings(MultiConnMode.AUTO, TrackDirty.CONNECTION, false, false);
    Backend served =
        new FuaFilter(new MultiConnFilter(disk.served("disk.img"), settings), FuaMode.PASS);
    AtomicInteger promises = new AtomicInteger();
    CountDownLatch connected = new CountDownLatch(CLIENTS);
    List<FutureTask<Void>> clients = new ArrayList<>();
    for (int i = 0; i < CLIENTS; i++) {
      Random random = new Random(seed + 31L * round + i);
      FutureTask<Void> client =
          new FutureTask<>(
              () -> {
                try (Handle handle = served.open("", false)) {
                  connected.countDown();
                  connected.await();
                  for (int command = 0; command < COMMANDS; command++) {
                    if (command(handle, disk, random)) {
                      promises.incrementAndGet();
                    }
                  }
                } catch (IOException lostAtTheEnd) {
                  assertThat(lostAtTheEnd).hasMessageContaining("may be lost");
                }
                return null;
              });
      clients.add(client);
      // Platform threads make calls themselves, so that the disk knows the command.
      Thread.ofPlatform().start(client);
    }
    for (FutureTask<Void> client : clients) {
      client.get();
    }
    return promises.get();
  }

  /** Makes a random command, and says whether the client was promised something. */
  private boolean command(Handle handle, FakeDisk disk, Random random) throws IOException {
    int number = numbers.incrementAndGet();
    disk.op.set(number);
    int offset = random.nextInt(SIZE - 1);
    int length = 1 + random.nextInt(Math.min(SIZE - offset, 300));
    boolean durably = random.nextInt(6) == 0;
    CommandFlags flags = durably ? CommandFlags.of(CommandFlag.FUA) : CommandFlags.NONE;
    try {
      switch (random.nextInt(8)) {
        case 0 -> {
          disk.happened(new FakeDisk.Event.FlushSent(number));
          handle.flush();
          disk.happened(new FakeDisk.Event.FlushAnswered(number));
          return true;
        }
        case 1 -> handle.trim(offset, length, flags);
        case 2 -> handle.zero(offset, length, flags);
        case 3 -> handle.zero(offset, length, flags.with(CommandFlag.NO_HOLE));
        default -> {
          ByteBuffer data = ByteBuffer.allocateDirect(length);
          if (durably || !handle.tryNow(Operation.write(data, offset, CommandFlags.NONE))) {
            handle.write(data, offset, flags);
          }
        }
      }
      disk.happened(new FakeDisk.Event.Answered(number, offset, length, durably));
      return durably;
    } catch (IOException refused) {
      return false;
    }
  }
}
