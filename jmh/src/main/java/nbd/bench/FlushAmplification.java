package nbd.bench;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import nbd.cache.CacheFilter;
import nbd.cache.CacheMode;
import nbd.cache.CacheSettings;
import nbd.cache.CacheStatistics;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.multiconn.TrackDirty;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Handle;
import org.openjdk.jmh.annotations.AuxCounters;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * The backend flushes for each client flush, the latency of client flushes, and their rate. Each
 * connection is a virtual thread, as in the server, that writes and flushes. One operation is many
 * client flushes; the figures beside it are for one.
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.SingleShotTime)
@OutputTimeUnit(TimeUnit.MILLISECONDS)
@Warmup(iterations = 2)
@Measurement(iterations = 3)
@Fork(1)
public class FlushAmplification {
  private static final int FLUSHES = Integer.getInteger("nbd.bench.flushes", 2560);

  /** The way in which connections are kept consistent; {@code serial} is the simplest one. */
  public enum Variant {
    /** The filter, mode emulate. */
    emulate,
    /** The filter, mode plugin, over a backend that is multi-conn. */
    plugin,
    /** The filter, mode disable. */
    disable,
    /** The filter, mode unsafe. */
    unsafe,
    /** One dirty handle flushed after the other, under one lock. */
    serial,
    /** The filter over a write-back cache. */
    writeback,
    /** The filter over a write-through cache, mode emulate. */
    writethrough
  }

  /** The connections on which the client flushes. */
  public enum Pattern {
    /** Each connection flushes after it has written. */
    every,
    /** One connection flushes when all have written. */
    one
  }

  /** The way in which connections are kept consistent. */
  @Param({"emulate", "serial"})
  public Variant variant = Variant.emulate;

  /** The tracking of dirty connections. */
  @Param("CONNECTION")
  public TrackDirty tracking = TrackDirty.CONNECTION;

  /** The number of connections. */
  @Param({"1", "4", "16", "64"})
  public int connections;

  /** The number of connections that write; 0 for all. */
  @Param("0")
  public int dirty;

  /** The connections on which the client flushes. */
  @Param("every")
  public Pattern pattern = Pattern.every;

  /** The duration of a backend flush. */
  @Param("5")
  public int flushMilliseconds;

  private SlowFlushBackend storage = new SlowFlushBackend(0, false);
  private Backend backend = storage;
  private final List<Handle> handles = new ArrayList<>();
  private long[] latencies = new long[0];
  private int writers;

  /** The figures shown beside the time. */
  @AuxCounters(AuxCounters.Type.EVENTS)
  @State(Scope.Thread)
  public static class Figures {
    /** Backend flushes for each client flush. */
    public double amplification;

    /** The median of a client flush. */
    public double p50Milliseconds;

    /** The 99th percentile of a client flush. */
    public double p99Milliseconds;

    /** Client flushes per second. */
    public double flushesPerSecond;

    /** Starts anew, as JMH requires. */
    @Setup(Level.Iteration)
    public void reset() {
      amplification = 0;
      p50Milliseconds = 0;
      p99Milliseconds = 0;
      flushesPerSecond = 0;
    }
  }

  /** Opens the connections. */
  @Setup(Level.Iteration)
  public void open() throws IOException {
    boolean multiConn = variant == Variant.plugin;
    storage = new SlowFlushBackend(TimeUnit.MILLISECONDS.toNanos(flushMilliseconds), multiConn);
    backend =
        switch (variant) {
          case emulate -> filter(storage, MultiConnMode.EMULATE);
          case plugin -> filter(storage, MultiConnMode.PLUGIN);
          case disable -> filter(storage, MultiConnMode.DISABLE);
          case unsafe -> filter(storage, MultiConnMode.UNSAFE);
          case serial -> new SerialReplication(storage);
          case writeback -> filter(cached(CacheMode.WRITEBACK), MultiConnMode.AUTO);
          case writethrough -> filter(cached(CacheMode.WRITETHROUGH), MultiConnMode.AUTO);
        };
    handles.clear();
    for (int i = 0; i < connections; i++) {
      handles.add(backend.open("", false));
    }
    writers = dirty == 0 ? connections : Math.min(dirty, connections);
  }

  private Backend filter(Backend around, MultiConnMode mode) {
    return new MultiConnFilter(around, new MultiConnSettings(mode, tracking, false, false));
  }

  private Backend cached(CacheMode mode) {
    return new CacheFilter(storage, CacheSettings.of(mode), false, new CacheStatistics());
  }

  /** Closes them. */
  @TearDown(Level.Iteration)
  public void close() throws IOException {
    for (Handle handle : handles) {
      handle.flush();
    }
    for (Handle handle : handles) {
      handle.close();
    }
    backend.close();
  }

  /** Makes client flushes, each after writes. */
  @Benchmark
  public void flushes(Figures figures) throws IOException, InterruptedException {
    long before = storage.flushes();
    long start = System.nanoTime();
    switch (pattern) {
      case every -> flushOnEvery();
      case one -> flushOnOne();
    }
    double seconds = (System.nanoTime() - start) / 1e9;
    Arrays.sort(latencies);
    figures.amplification = (storage.flushes() - before) / (double) latencies.length;
    figures.p50Milliseconds = latencies[latencies.length / 2] / 1e6;
    figures.p99Milliseconds = latencies[(int) (latencies.length * 0.99)] / 1e6;
    figures.flushesPerSecond = latencies.length / seconds;
  }

  private void flushOnEvery() throws InterruptedException {
    int each = Math.max(1, FLUSHES / connections);
    latencies = new long[each * connections];
    CountDownLatch ready = new CountDownLatch(1);
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < connections; i++) {
      int connection = i;
      threads.add(
          Thread.ofVirtual()
              .start(
                  () -> {
                    try {
                      ready.await();
                      for (int n = 0; n < each; n++) {
                        if (connection < writers) {
                          write(connection);
                        }
                        latencies[connection * each + n] = flush(connection);
                      }
                    } catch (IOException | InterruptedException e) {
                      throw new IllegalStateException(e);
                    }
                  }));
    }
    ready.countDown();
    for (Thread thread : threads) {
      thread.join();
    }
  }

  private void flushOnOne() throws IOException {
    int count = Math.max(1, FLUSHES / 16);
    latencies = new long[count];
    for (int n = 0; n < count; n++) {
      for (int connection = 0; connection < writers; connection++) {
        write(connection);
      }
      latencies[n] = flush(connections - 1);
    }
  }

  private void write(int connection) throws IOException {
    // Each connection writes into its own block of a cache.
    long offset = (long) connection * CacheSettings.DEFAULT_BLOCK_SIZE;
    handles.get(connection).write(ByteBuffer.allocate(512), offset, CommandFlags.NONE);
  }

  private long flush(int connection) throws IOException {
    long start = System.nanoTime();
    handles.get(connection).flush();
    return System.nanoTime() - start;
  }
}
