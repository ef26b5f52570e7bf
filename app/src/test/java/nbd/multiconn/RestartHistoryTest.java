package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.function.UnaryOperator;
import nbd.protocol.BlockSizes;
import nbd.storage.Capabilities;
import nbd.testing.FakeBackend;
import org.junit.jupiter.api.Test;

/**
 * A {@link History} with a server that is restarted at random, and forgets what was not flushed,
 * while its connections notice at once or by their next call. One call after the other; the
 * property {@code nbd.history.seed} repeats a run that failed.
 */
class RestartHistoryTest {
  private static final long SEED = Long.getLong("nbd.history.seed", System.nanoTime());
  private static final int RUNS = 1_000;
  private static final int COMMANDS = 30;
  private static final int BLOCKS = 4;

  @Test
  void whatARestartLostIsReportedToEverybodyOnceWhereTheServerIsMultiConn() throws IOException {
    play(Scene.MULTI_CONN, MultiConnMode.AUTO, "");
  }

  @Test
  void whatARestartLostIsReportedAcrossNamesWhereTheFlushIsEmulated() throws IOException {
    play(Scene.MULTI_CONN, MultiConnMode.EMULATE, "other");
  }

  @Test
  void whatARestartLostIsReportedToEverybodyOnceWhereTheServerIsNotMultiConn() throws IOException {
    play(Scene.WRITABLE, MultiConnMode.AUTO, "other");
  }

  private static void play(Capabilities storage, MultiConnMode mode, String otherName)
      throws IOException {
    System.out.println("-Dnbd.history.seed=" + SEED + " for " + mode);
    SplittableRandom random = new SplittableRandom(SEED);
    for (TrackDirty tracking : TrackDirty.values()) {
      for (int run = 0; run < RUNS; run++) {
        new Play(
                new FakeBackend(BLOCKS * History.BLOCK, BlockSizes.DEFAULT, storage),
                new MultiConnSettings(mode, tracking, false, false),
                otherName,
                random.split())
            .run();
      }
    }
  }

  /** One server and its clients. */
  private static final class Play {
    private final FakeBackend server;
    private final History history;
    private final String otherName;
    private final SplittableRandom random;
    private final List<History.Client> clients = new ArrayList<>();
    private final StringBuilder commands = new StringBuilder();

    Play(
        FakeBackend server, MultiConnSettings settings, String otherName, SplittableRandom random) {
      this.server = server;
      this.history =
          new History(server, UnaryOperator.identity(), settings, Thread.ofVirtual()::start);
      this.otherName = otherName;
      this.random = random;
    }

    void run() throws IOException {
      for (int i = 0; i < COMMANDS; i++) {
        command();
        check();
      }
      // A client that comes now gets the report that nobody had, and goes on.
      for (int i = 0; i < 2; i++) {
        History.Client last = history.open("");
        clients.add(last);
        commands.append(" open and flush");
        boolean first = last.flush();
        assertThat(first || last.flush()).as("never succeeds:%s", commands).isTrue();
        check();
      }
      clients.forEach(History.Client::close);
      check();
    }

    private void check() {
      assertThat(history.violation()).as(commands.toString()).isEmpty();
    }

    private void command() throws IOException {
      int what = random.nextInt(100);
      if (clients.size() < 2 || (what < 12 && clients.size() < 5)) {
        commands.append(" open");
        clients.add(history.open(random.nextInt(3) == 0 ? otherName : ""));
        return;
      }
      int number = random.nextInt(clients.size());
      History.Client client = clients.get(number);
      boolean succeeded = true;
      if (what < 20) {
        commands.append(" restart");
        server.crash();
        server.handles().forEach(handle -> handle.cut("restarted", random.nextBoolean()));
      } else if (what < 25) {
        commands.append(" cut").append(number);
        client.below.cut("cut", random.nextBoolean());
      } else if (what < 32) {
        commands.append(" close").append(number);
        clients.remove(client);
        client.close();
      } else if (what < 65) {
        commands.append(" write").append(number);
        succeeded = client.write(random.nextInt(BLOCKS));
      } else {
        commands.append(" flush").append(number);
        succeeded = client.flush();
      }
      commands.append(succeeded ? "" : "!");
    }
  }
}
