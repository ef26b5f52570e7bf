package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import nbd.filter.SerializeFilter;
import nbd.storage.ThreadModel;
import nbd.testing.FakeBackend;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/**
 * A {@link History} of many connections that cache on their own, read, write, flush, close and come
 * back at random, all at the same time. The property {@code nbd.history.operations} says how many
 * commands, {@code nbd.history.seed} repeats the choices of a run that failed (not its
 * interleaving).
 */
class RandomHistoryTest {
  private static final long OPERATIONS = Long.getLong("nbd.history.operations", 100_000);
  private static final long SEED = Long.getLong("nbd.history.seed", System.nanoTime());
  private static final Duration PATIENCE = Duration.ofMinutes(5);
  private static final int CONNECTIONS = 8;
  private static final int BLOCKS = 24;

  @Test
  void emulateKeepsThePromise() throws IOException {
    assertThat(play(MultiConnMode.EMULATE, TrackDirty.CONNECTION, ThreadModel.PARALLEL, OPERATIONS))
        .isEmpty();
  }

  @Test
  void autoKeepsThePromiseOverABackendThatDoesNot() throws IOException {
    assertThat(play(MultiConnMode.AUTO, TrackDirty.CONNECTION, ThreadModel.PARALLEL, OPERATIONS))
        .isEmpty();
  }

  @Test
  void emulateKeepsThePromiseInEveryTrackingAndThreadModel() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      for (ThreadModel model :
          new ThreadModel[] {ThreadModel.SERIALIZE_ALL_REQUESTS, ThreadModel.SERIALIZE_REQUESTS}) {
        assertThat(play(MultiConnMode.EMULATE, tracking, model, OPERATIONS / 10))
            .as("%s %s", tracking, model)
            .isEmpty();
      }
    }
  }

  @Test
  void unsafeIsFoundOut() throws IOException {
    assertThat(play(MultiConnMode.UNSAFE, TrackDirty.CONNECTION, ThreadModel.PARALLEL, OPERATIONS))
        .isPresent();
  }

  private static Optional<String> play(
      MultiConnMode mode, TrackDirty tracking, ThreadModel model, long operations)
      throws IOException {
    System.out.println(
        "-Dnbd.history.seed=" + SEED + " for " + mode + " " + tracking + " " + model);
    Play play = new Play(mode, tracking, model, operations);
    List<Running> players = new ArrayList<>();
    for (int i = 0; i < CONNECTIONS; i++) {
      SplittableRandom random = new SplittableRandom(SEED + i);
      players.add(Running.start(() -> play.run(random)));
    }
    for (Running player : players) {
      player.join(PATIENCE);
    }
    play.history.violation().ifPresent(System.out::println);
    return play.history.violation();
  }

  /** One run: what its players share. */
  private static final class Play {
    private final History history;
    private final AtomicLong left;
    private final AtomicLong calls = new AtomicLong();

    Play(MultiConnMode mode, TrackDirty tracking, ThreadModel model, long operations) {
      FakeBackend storage = FakeBackend.cachingPrivately(BLOCKS * History.BLOCK, Scene.WRITABLE);
      this.history =
          new History(
              storage.hook(call -> pause(5)).after(call -> pause(5)),
              contract -> new SerializeFilter(contract, model),
              new MultiConnSettings(mode, tracking, false, false),
              Thread.ofVirtual()::start);
      this.left = new AtomicLong(operations);
    }

    /** Lets others go first at times, so that calls overlap on few processors too. */
    private void pause(int times) {
      if (calls.incrementAndGet() % times == 0) {
        LockSupport.parkNanos(1);
      }
    }

    void run(SplittableRandom random) throws IOException {
      while (left.get() > 0 && history.violation().isEmpty()) {
        connect(random);
      }
    }

    /** Plays one connection, which has two commands in flight at times. */
    private void connect(SplittableRandom random) throws IOException {
      History.Client client = history.open("");
      int commands = random.nextInt(1, 2000);
      while (commands-- > 0 && left.decrementAndGet() >= 0 && history.violation().isEmpty()) {
        if (random.nextInt(8) == 0) {
          SplittableRandom others = random.split();
          Running beside = Running.start(() -> command(client, others));
          command(client, random);
          beside.join();
        } else {
          command(client, random);
        }
      }
      client.close();
    }

    private void command(History.Client client, SplittableRandom random) {
      int block = random.nextInt(BLOCKS);
      int what = random.nextInt(100);
      boolean succeeded =
          what < 50 ? client.read(block) : what < 88 ? client.write(block) : client.flush();
      assertThat(succeeded).isTrue();
      if (random.nextInt(16) == 0) {
        pause(1);
      }
    }
  }
}
