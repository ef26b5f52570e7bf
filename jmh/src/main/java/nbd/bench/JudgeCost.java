package nbd.bench;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;
import nbd.check.Event;
import nbd.check.HistoryChecker;
import nbd.check.HistoryChecker.Flush;
import nbd.check.HistoryChecker.Read;
import nbd.check.HistoryChecker.Write;
import nbd.check.Step;
import nbd.check.Violation.Level;
import org.jspecify.annotations.Nullable;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.Warmup;

/**
 * The time to judge a history at both levels: that of a coherent storage, with 4 connections of 8
 * requests each on 64 sectors. The time for each operation is the same for each length.
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.SingleShotTime)
@OutputTimeUnit(TimeUnit.MILLISECONDS)
@Warmup(iterations = 1)
@Measurement(iterations = 3)
@Fork(value = 1, jvmArgsAppend = "-Xmx1g")
public class JudgeCost {
  private static final int CONNECTIONS = 4;
  private static final int IN_FLIGHT = 32;
  private static final int SECTORS = 64;

  /** The length of the history. */
  @Param({"250000", "1000000"})
  public int operations;

  /** How many of a thousand operations are flushes. */
  @Param({"100", "0"})
  public int flushes;

  /** Judges a history. */
  @Benchmark
  public void judge() {
    History history = new History(flushes);
    for (int i = 0; i < operations; i++) {
      history.operate();
    }
  }

  private static final class History {
    private final SplittableRandom random = new SplittableRandom(1);
    private final HistoryChecker checker =
        new HistoryChecker(new Event.Start(SECTORS, true), Set.of(Level.values()), 0, event -> {});
    private final @Nullable Object[] requests = new @Nullable Object[IN_FLIGHT];
    private final int[] sectors = new int[IN_FLIGHT];
    private final int[] counts = new int[IN_FLIGHT];
    private final Long[] contents = new Long[SECTORS];
    private final int flushes;

    History(int flushes) {
      this.flushes = flushes;
      Arrays.fill(contents, 0L);
    }

    /** Ends a request, and begins the next one of its connection. */
    void operate() {
      int slot = random.nextInt(IN_FLIGHT);
      end(slot, requests[slot]);
      int connection = slot % CONNECTIONS;
      int kind = random.nextInt(1000);
      int count = random.nextInt(1, 5);
      int sector = random.nextInt(SECTORS - count + 1);
      sectors[slot] = sector;
      counts[slot] = count;
      if (kind < flushes) {
        requests[slot] = checker.beginFlush(connection);
      } else if (kind % 2 == 0) {
        requests[slot] = checker.beginRead(connection, sector, count);
      } else {
        requests[slot] = checker.beginWrite(connection, Step.Kind.WRITE, sector, count, kind > 980);
      }
    }

    private void end(int slot, @Nullable Object request) {
      switch (request) {
        case Write write -> {
          for (int i = 0; i < counts[slot]; i++) {
            contents[sectors[slot] + i] = write.value() + i;
          }
          checker.endWrite(write, true);
        }
        case Read read -> {
          List<List<Long>> data = new ArrayList<>();
          for (int i = 0; i < counts[slot]; i++) {
            data.add(List.of(contents[sectors[slot] + i]));
          }
          checker
              .endRead(read, data)
              .ifPresent(
                  found -> {
                    throw new AssertionError(found);
                  });
        }
        case Flush flush -> checker.endFlush(flush, true);
        case null, default -> {}
      }
    }
  }
}
