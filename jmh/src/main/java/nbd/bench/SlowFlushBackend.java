package nbd.bench;

import java.util.concurrent.atomic.LongAdder;
import java.util.concurrent.locks.LockSupport;
import nbd.protocol.Command;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.storage.ThreadModel;

/** A backend that stores nothing, counts its flushes, and takes a given time for each. */
final class SlowFlushBackend implements Backend {
  private final LongAdder flushes = new LongAdder();
  private final long flushNanoseconds;
  private final Capabilities capabilities;

  SlowFlushBackend(long flushNanoseconds, boolean multiConn) {
    this.flushNanoseconds = flushNanoseconds;
    Capabilities has = Capabilities.of(Capability.WRITE, Capability.FLUSH);
    this.capabilities = multiConn ? has.with(Capability.MULTI_CONN) : has;
  }

  long flushes() {
    return flushes.sum();
  }

  @Override
  public String name() {
    return "slow flush";
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) {
    return new SlowFlushHandle();
  }

  @Override
  public void close() {
    // Nothing is held.
  }

  private final class SlowFlushHandle extends Handle {
    SlowFlushHandle() {
      super(new ExportFacts(1 << 30, capabilities));
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end) {
      if (operation.command() == Command.FLUSH) {
        if (patience != Patience.WAIT) {
          return Outcome.DECLINED;
        }
        flushes.increment();
        awaitFlush();
      }
      return patience == Patience.LATER ? Outcome.DECLINED : Outcome.DONE;
    }

    private void awaitFlush() {
      long end = System.nanoTime() + flushNanoseconds;
      for (long left = flushNanoseconds; left > 0; left = end - System.nanoTime()) {
        LockSupport.parkNanos(left);
      }
    }

    @Override
    public void close() {
      // Nothing is held.
    }
  }
}
