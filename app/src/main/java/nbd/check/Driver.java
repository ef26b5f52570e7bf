package nbd.check;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.atomic.LongAdder;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;
import nbd.check.Finding.Severity;
import nbd.check.Verdict.Counts;
import nbd.check.Violation.Level;
import nbd.storage.LostException;
import org.jspecify.annotations.Nullable;

/**
 * A random history: several connections read, write and flush a few sectors at the same time, and
 * the judge hears of every request.
 *
 * <p>The history is a sequence of episodes, which differ in the sectors, in the commands of each
 * connection and in the number of requests in flight: some faults need requests that overlap, and
 * others are hidden by them. Nothing is in flight between two episodes.
 */
final class Driver {
  /** The sectors that a history uses, from the beginning of the region. */
  static final int SECTORS = 32;

  private static final int[] WIDTHS = {1, 2, 4, 8, SECTORS};
  private static final int[] DEPTHS = {1, 4, Lane.MOST_IN_FLIGHT, Lane.MOST_IN_FLIGHT};

  /** Values begin anywhere, so that those of an earlier check can be told apart. */
  private static final int LARGEST_FIRST_SERIAL = 1 << 30;

  /** Few requests, since one in flight at a time is slow. */
  private static final int SERIAL_OPERATIONS = 128;

  /** The share of closes, in half of the episodes with one request in flight. */
  private static final int CLOSED_IN = 16;

  /** Few requests where there may be no flush, since the judge can forget nothing then. */
  private static final int OPERATIONS_BY_ROLES = 256;

  /** Where requests overlap little they take longer, and more of them find little more. */
  private static final int OPERATIONS_FOR_EACH_IN_FLIGHT = 256;

  /** One of so many episodes ends by a restart. */
  private static final int RESTART_IN = 4;

  private static final Duration PATIENCE = Duration.ofSeconds(1);

  /** The end of an episode that ends otherwise. */
  private static final long NEVER = Long.MIN_VALUE;

  private static final Duration LONGEST_EPISODE = Duration.ofMillis(100);

  private final Target target;
  private final SplittableRandom random;
  private final HistoryChecker judge;
  private final RecentEvents recent = new RecentEvents();
  private final List<Lane> lanes = new ArrayList<>();
  private final AtomicInteger connectionNumbers = new AtomicInteger();
  private final AtomicReference<@Nullable Found> violation = new AtomicReference<>();
  private final AtomicReference<@Nullable Found> incoherence = new AtomicReference<>();
  private final AtomicReference<@Nullable IOException> firstFailure = new AtomicReference<>();
  private final AtomicReference<@Nullable IOException> firstLoss = new AtomicReference<>();
  private final AtomicReference<@Nullable IOException> unreachable = new AtomicReference<>();
  private final LongAdder requests = new LongAdder();
  private final LongAdder readSectors = new LongAdder();
  private final LongAdder failures = new LongAdder();
  private final LongAdder restarts = new LongAdder();
  private final LongAdder losses = new LongAdder();
  private volatile long begin = System.nanoTime();
  private volatile long end;

  /** The time for which requests were made; zero while they are. */
  private volatile Duration time = Duration.ZERO;

  /** True if a restart of the server has ended the episode. */
  private volatile boolean restarting;

  private volatile boolean stopped;

  /**
   * Makes a history that has not begun.
   *
   * @param connections the number of connections at a time
   */
  Driver(Target target, int connections, long seed) {
    this(target, connections, seed, event -> {});
  }

  /**
   * Makes a history that has not begun.
   *
   * @param observer is told every event, in the order of time
   */
  Driver(Target target, int connections, long seed, Consumer<Event> observer) {
    this.target = target;
    this.random = new SplittableRandom(seed);
    this.judge =
        new HistoryChecker(
            new Event.Start(SECTORS, true),
            Set.of(Level.FLUSH, Level.COHERENT),
            random.nextInt(LARGEST_FIRST_SERIAL),
            recent.andThen(observer));
    for (int i = 0; i < connections; i++) {
      lanes.add(new Lane(this, random.split()));
    }
  }

  /** Drives, as below, without restarts. */
  void drive(Duration duration) throws IOException {
    drive(duration, Optional.empty());
  }

  /**
   * Drives until the time is over, {@link #stop} is called, a promise is broken, or the server can
   * no longer be reached, which is a finding. The last replies may take as long as the target's
   * settings allow.
   *
   * @param restart how to restart the server now and then, if that is wanted
   * @throws IOException if the server cannot be reached at first, or cannot be restarted
   */
  void drive(Duration duration, Optional<Restart> restart) throws IOException {
    try {
      writeFirstContents();
      for (Lane lane : lanes) {
        open(lane);
      }
      begin = System.nanoTime();
      end = begin + duration.toNanos();
      run(restart);
    } catch (IOException failure) {
      if (!stopped) {
        throw failure;
      }
    } finally {
      time = Duration.ofNanos(System.nanoTime() - begin);
      lanes.forEach(Lane::close);
    }
  }

  private void run(Optional<Restart> restart) throws IOException {
    try {
      while (goesOn()) {
        if (restart.isPresent() && random.nextInt(RESTART_IN) == 0) {
          restartUnderLoad(restart.get());
        } else if (random.nextBoolean()) {
          runSerially();
        } else {
          runInParallel();
        }
      }
    } catch (IOException lost) {
      if (stopped || restart.isPresent()) {
        throw lost;
      }
      unreachable.set(lost);
    }
  }

  private void open(Lane lane) throws IOException {
    try {
      lane.open();
    } catch (IOException refused) {
      int accepted = lanes.indexOf(lane);
      throw accepted == 0
          ? refused
          : new IOException(
              "%s; it accepted %d of %d connections, see --connections"
                  .formatted(refused.getMessage(), accepted, lanes.size()),
              refused);
    }
  }

  /** Writes zeroes, which the judge takes for granted. */
  private void writeFirstContents() throws IOException {
    target.overwrite(ByteBuffer.allocateDirect(SECTORS * target.unit()), target.offsetOf(0));
  }

  /** Runs an episode with one request in flight at a time. */
  private void runSerially() throws IOException {
    Episode episode = episode(1);
    boolean closes = random.nextBoolean();
    for (Lane lane : lanes) {
      lane.begin(episode);
    }
    for (int i = 0; i < SERIAL_OPERATIONS && goesOn(episode); i++) {
      Lane lane = lanes.get(random.nextInt(lanes.size()));
      if (closes && random.nextInt(CLOSED_IN) == 0) {
        lane.close();
        lane.openAgain();
        // A flush right behind covers what the closed connection has left.
        lanes.get(random.nextInt(lanes.size())).flush();
      } else {
        lane.runOne();
      }
    }
  }

  private void runInParallel() throws IOException {
    Episode episode = episode(DEPTHS[random.nextInt(DEPTHS.length)]);
    List<Thread> threads = start(episode);
    threads.forEach(Driver::join);
    for (Lane lane : lanes) {
      lane.rethrow();
    }
    if (!episode.alike()) {
      lanes.get(random.nextInt(lanes.size())).flush();
    }
  }

  private List<Thread> start(Episode episode) throws IOException {
    for (Lane lane : lanes) {
      lane.begin(episode);
    }
    return lanes.stream().map(lane -> Thread.ofVirtual().name("connection").start(lane)).toList();
  }

  /** Restarts the server while requests are in flight, and reads every sector. */
  private void restartUnderLoad(Restart restart) throws IOException {
    List<Thread> threads = start(episode(DEPTHS[random.nextInt(DEPTHS.length)]).untilRestart());
    LockSupport.parkNanos(random.nextLong(LONGEST_EPISODE.toNanos()));
    try {
      restart.run();
      for (Thread thread : threads) {
        // The connection notices its end a moment later.
        endsWithin(PATIENCE, thread);
      }
    } finally {
      restarting = true;
      threads.forEach(Driver::join);
      restarting = false;
    }
    for (Lane lane : lanes) {
      lane.requireLoss();
    }
    judge.crash();
    restarts.increment();
    try {
      for (Lane lane : lanes) {
        lane.close();
        lane.openAgain();
      }
    } catch (IOException down) {
      throw Restart.failed(down);
    }
    lanes.get(random.nextInt(lanes.size())).readAll();
  }

  private Episode episode(int depth) {
    int width = WIDTHS[random.nextInt(WIDTHS.length)];
    int first = random.nextInt(SECTORS - width + 1);
    int batch = Math.max(1, depth / 2);
    long until = System.nanoTime() + LONGEST_EPISODE.toNanos();
    boolean alike = random.nextBoolean();
    int operations = alike ? depth * OPERATIONS_FOR_EACH_IN_FLIGHT : OPERATIONS_BY_ROLES;
    return new Episode(first, width, depth, batch, alike, operations, until);
  }

  /**
   * A part of the history.
   *
   * @param first the first sector that it uses
   * @param width the number of sectors
   * @param depth the number of requests that a connection has in flight
   * @param batch the number of replies for which it waits before it makes more requests
   * @param alike whether every connection uses all commands
   * @param operations the most that a connection makes
   * @param until the time at which it ends, as {@link System#nanoTime} counts
   */
  record Episode(
      int first, int width, int depth, int batch, boolean alike, int operations, long until) {
    static final Episode NONE = new Episode(0, 1, 1, 1, true, 0, 0);

    /** Makes the episode last until the server has been restarted. */
    Episode untilRestart() {
      return new Episode(first, width, depth, batch, true, Integer.MAX_VALUE, NEVER);
    }

    boolean endsByRestart() {
      return until == NEVER;
    }
  }

  private static void join(Thread thread) {
    while (!endsWithin(PATIENCE, thread)) {}
  }

  private static boolean endsWithin(Duration patience, Thread thread) {
    try {
      return thread.join(patience);
    } catch (InterruptedException interrupted) {
      throw new IllegalStateException("nobody interrupts a check", interrupted);
    }
  }

  /** Says whether an episode has not ended yet. */
  boolean goesOn(Episode episode) {
    return episode.endsByRestart()
        ? !restarting
        : goesOn() && System.nanoTime() - episode.until < 0;
  }

  boolean isStopped() {
    return stopped;
  }

  private boolean goesOn() {
    return !stopped && violation.get() == null && System.nanoTime() - end < 0;
  }

  /** Ends the history soon. Any thread may call. */
  void stop() {
    stopped = true;
  }

  Target target() {
    return target;
  }

  HistoryChecker judge() {
    return judge;
  }

  int nextConnection() {
    return connectionNumbers.incrementAndGet();
  }

  void countRead(int sectors) {
    readSectors.add(sectors);
  }

  /** Notes the end of a request: answered, refused, or lost with its connection. */
  void ended(@Nullable IOException failure) {
    if (failure == null) {
      requests.increment();
    } else if (failure instanceof LostException) {
      losses.increment();
      firstLoss.compareAndSet(null, failure);
    } else {
      requests.increment();
      failures.increment();
      firstFailure.compareAndSet(null, failure);
    }
  }

  /** Notes a violation: one of coherence is kept, one of the promise ends the history. */
  void found(Violation found) {
    AtomicReference<@Nullable Found> first = found.level() == Level.FLUSH ? violation : incoherence;
    if (first.get() == null) {
      first.compareAndSet(null, new Found(found, recent.list()));
    }
  }

  List<Event> recent() {
    return recent.list();
  }

  /**
   * A violation.
   *
   * @param history the last events at that time, oldest first
   */
  record Found(Violation violation, List<Event> history) {}

  /** Returns the first violation of the promise, if there is one. */
  Optional<Found> violation() {
    return Optional.ofNullable(violation.get());
  }

  /** Returns the first violation of coherence only, if there is one. */
  Optional<Found> incoherence() {
    return Optional.ofNullable(incoherence.get());
  }

  /** Says whether any read was judged. */
  boolean hasTested() {
    return readSectors.sum() > 0;
  }

  /** Says whether the server can no longer be reached. */
  boolean hasLostServer() {
    return unreachable.get() != null;
  }

  /** Returns the faults that are no violations: errors, and connections that the server ended. */
  List<Finding> findings() {
    List<Finding> findings = new ArrayList<>();
    IOException loss = firstLoss.get();
    if (loss != null) {
      findings.add(
          new Finding(
              Severity.BROKEN,
              Finding.Kind.PROTOCOL,
              "%d requests were not answered: %s".formatted(losses.sum(), loss.getMessage())));
    }
    IOException lost = unreachable.get();
    if (lost != null) {
      findings.add(
          new Finding(
              Severity.BROKEN,
              Finding.Kind.CONNECTIONS,
              "no new connection could be made later: " + lost.getMessage()));
    }
    IOException failure = firstFailure.get();
    if (failure != null) {
      findings.add(
          new Finding(
              Severity.WARNING,
              Finding.Kind.ERROR_NUMBER,
              "%d requests failed, the first one so: %s"
                  .formatted(failures.sum(), failure.getMessage())));
    }
    return findings;
  }

  /** Returns the counts so far. Any thread may call. */
  Counts counts() {
    Duration driven = time.isZero() ? Duration.ofNanos(System.nanoTime() - begin) : time;
    return new Counts(0, requests.sum(), readSectors.sum(), failures.sum(), restarts.sum(), driven);
  }
}
