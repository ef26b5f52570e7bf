package nbd.filter;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.atomic.LongAdder;
import nbd.filter.Statistics.Count;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.ReadTarget;
import org.jspecify.annotations.Nullable;

/** Counts what passes. One stands before all other filters, one between them and the backend. */
public final class StatisticsFilter extends FilterBackend {
  private final Statistics statistics;

  /** Counts into the given statistics. */
  public StatisticsFilter(Backend next, Statistics statistics) {
    super(next);
    this.statistics = statistics;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    Handle handle = next.open(exportName, readOnly);
    statistics.adder(Count.OPEN).increment();
    return new CountingHandle(handle, statistics);
  }

  private static final class CountingHandle extends FilterHandle {
    private final LongAdder reads;
    private final LongAdder readBytes;
    private final LongAdder writes;
    private final LongAdder writeBytes;
    private final LongAdder flushes;
    private final LongAdder fuas;
    private final LongAdder trims;
    private final LongAdder zeroes;
    private final LongAdder caches;
    private final LongAdder extents;
    private final LongAdder errors;

    CountingHandle(Handle next, Statistics statistics) {
      super(next);
      reads = statistics.adder(Count.READ);
      readBytes = statistics.adder(Count.READ_BYTES);
      writes = statistics.adder(Count.WRITE);
      writeBytes = statistics.adder(Count.WRITE_BYTES);
      flushes = statistics.adder(Count.FLUSH);
      fuas = statistics.adder(Count.FUA);
      trims = statistics.adder(Count.TRIM);
      zeroes = statistics.adder(Count.ZERO);
      caches = statistics.adder(Count.CACHE);
      extents = statistics.adder(Count.EXTENTS);
      errors = statistics.adder(Count.ERROR);
    }

    /** A call on the next handle. */
    @FunctionalInterface
    private interface Call {
      void run() throws IOException;
    }

    private void count(LongAdder adder, CommandFlags flags, Call call) throws IOException {
      adder.increment();
      if (flags.has(CommandFlag.FUA)) {
        fuas.increment();
      }
      try {
        call.run();
      } catch (IOException failure) {
        errors.increment();
        throw failure;
      }
    }

    @Override
    public void read(ByteBuffer into, long offset) throws IOException {
      readBytes.add(into.remaining());
      count(reads, CommandFlags.NONE, () -> next.read(into, offset));
    }

    @Override
    public boolean readNow(ByteBuffer into, long offset) throws IOException {
      int length = into.remaining();
      boolean done = next.readNow(into, offset);
      if (done) {
        reads.increment();
        readBytes.add(length);
      }
      return done;
    }

    @Override
    public boolean transferNow(long offset, long length, ReadTarget to) throws IOException {
      boolean done = next.transferNow(offset, length, to);
      if (done) {
        reads.increment();
        readBytes.add(length);
      }
      return done;
    }

    @Override
    public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
      writeBytes.add(from.remaining());
      count(writes, flags, () -> next.write(from, offset, flags));
    }

    @Override
    public boolean writeNow(ByteBuffer from, long offset) throws IOException {
      int length = from.remaining();
      boolean done = next.writeNow(from, offset);
      if (done) {
        writes.increment();
        writeBytes.add(length);
      }
      return done;
    }

    @Override
    public boolean fuaIsQuick() {
      return next.fuaIsQuick();
    }

    @Override
    public boolean beginRead(ByteBuffer into, long offset, Completion end) {
      int length = into.remaining();
      boolean begun = next.beginRead(into, offset, failure -> ended(failure, end));
      if (begun) {
        reads.increment();
        readBytes.add(length);
      }
      return begun;
    }

    @Override
    public boolean beginWrite(ByteBuffer from, long offset, CommandFlags flags, Completion end) {
      int length = from.remaining();
      boolean begun = next.beginWrite(from, offset, flags, failure -> ended(failure, end));
      if (begun) {
        writes.increment();
        writeBytes.add(length);
        if (flags.has(CommandFlag.FUA)) {
          fuas.increment();
        }
      }
      return begun;
    }

    private void ended(@Nullable IOException failure, Completion end) {
      if (failure != null) {
        errors.increment();
      }
      end.done(failure);
    }

    @Override
    public void flush() throws IOException {
      count(flushes, CommandFlags.NONE, next::flush);
    }

    @Override
    public void trim(long offset, long length, CommandFlags flags) throws IOException {
      count(trims, flags, () -> next.trim(offset, length, flags));
    }

    @Override
    public void zero(long offset, long length, CommandFlags flags) throws IOException {
      count(zeroes, flags, () -> next.zero(offset, length, flags));
    }

    @Override
    public void cache(long offset, long length) throws IOException {
      count(caches, CommandFlags.NONE, () -> next.cache(offset, length));
    }

    @Override
    public List<Extent> extents(long offset, long length, int most) throws IOException {
      extents.increment();
      try {
        return next.extents(offset, length, most);
      } catch (IOException failure) {
        errors.increment();
        throw failure;
      }
    }
  }
}
