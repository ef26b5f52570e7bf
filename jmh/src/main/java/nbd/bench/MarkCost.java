package nbd.bench;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.multiconn.TrackDirty;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.Operation;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.Threads;
import org.openjdk.jmh.annotations.Warmup;

/**
 * The cost of marking a write or a read: the time of a call through the filter, over storage that
 * does nothing, minus that of the same call without the filter. With 64 threads the time includes
 * waiting for a processor: divide it by the threads and multiply it by the processors.
 */
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(1)
public class MarkCost {
  /** The connections, one for each thread. */
  @State(Scope.Benchmark)
  public static class Group {
    private final Backend storage = new SlowFlushBackend(0, false);
    private final Backend filter =
        new MultiConnFilter(
            storage,
            new MultiConnSettings(MultiConnMode.EMULATE, TrackDirty.CONNECTION, false, false));
    private final List<Handle> marked = new ArrayList<>();
    private final List<Handle> unmarked = new ArrayList<>();
    private final AtomicInteger next = new AtomicInteger();

    /** Opens the connections. */
    @Setup
    public void open() throws IOException {
      for (int i = 0; i < 64; i++) {
        marked.add(filter.open("", false));
        unmarked.add(storage.open("", false));
      }
    }
  }

  /** A thread's own connection. */
  @State(Scope.Thread)
  public static class Connection {
    private final ByteBuffer data = ByteBuffer.allocate(512);
    private final Operation operation = Operation.flush();
    private int number;

    /** Takes a connection. */
    @Setup
    public void take(Group group) {
      number = group.next.getAndIncrement() % 64;
    }

    private boolean write(List<Handle> handles) throws IOException {
      return handles.get(number).tryNow(operation.writing(data, 0, CommandFlags.NONE));
    }
  }

  /** Makes a marked write, alone. */
  @Benchmark
  @Threads(1)
  public boolean write(Group group, Connection mine) throws IOException {
    return mine.write(group.marked);
  }

  /** Makes a marked write while 63 other threads do so too. */
  @Benchmark
  @Threads(64)
  public boolean writeAmong64(Group group, Connection mine) throws IOException {
    return mine.write(group.marked);
  }

  /** Makes a marked read, alone. */
  @Benchmark
  @Threads(1)
  public boolean read(Group group, Connection mine) throws IOException {
    return group.marked.get(mine.number).tryNow(mine.operation.reading(mine.data, 0));
  }

  /** Makes a write that is not marked. */
  @Benchmark
  @Threads(1)
  public boolean unmarkedWrite(Group group, Connection mine) throws IOException {
    return mine.write(group.unmarked);
  }

  /** Makes a write that is not marked while 63 other threads do so too. */
  @Benchmark
  @Threads(64)
  public boolean unmarkedWriteAmong64(Group group, Connection mine) throws IOException {
    return mine.write(group.unmarked);
  }
}
