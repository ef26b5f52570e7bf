package nbd.bench;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
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
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.Warmup;

/** The cost of a flush when 4 handles have written, among ever more that have not. */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(1)
public class FlushAmongMany {
  private static final int DIRTY = 4;

  /** The number of handles. */
  @Param({"10", "1000", "100000"})
  public int handles;

  private final List<Handle> opened = new ArrayList<>();
  private final ByteBuffer data = ByteBuffer.allocate(512);

  /** Opens the handles; each reads once. */
  @Setup
  public void open() throws IOException {
    Backend filter =
        new MultiConnFilter(
            new SlowFlushBackend(0, false),
            new MultiConnSettings(MultiConnMode.EMULATE, TrackDirty.CONNECTION, false, false));
    for (int i = 0; i < handles; i++) {
      opened.add(filter.open("", false));
      opened.get(i).tryNow(Operation.read(data, 0));
    }
  }

  /** Writes on four handles and flushes on a fifth. */
  @Benchmark
  public void flush() throws IOException {
    for (int i = 0; i < DIRTY; i++) {
      opened.get(i * (handles / DIRTY)).tryNow(Operation.write(data, 0, CommandFlags.NONE));
    }
    opened.get(handles - 1).flush();
  }
}
