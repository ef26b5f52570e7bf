package nbd.filter;

import java.io.IOException;
import java.util.Optional;
import nbd.filter.Statistics.Count;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/**
 * Counts operations. One stands in front of all other filters, one between them and the storage.
 */
public final class StatisticsFilter extends FilterBackend {
  private final Statistics statistics;

  /** Counts into the given statistics. */
  public StatisticsFilter(Backend next, Statistics statistics) {
    super(next);
    this.statistics = statistics;
  }

  @Override
  protected Handle wrap(Handle handle, String exportName) {
    statistics.add(Count.OPEN, 1);
    return new CountingHandle(handle);
  }

  private final class CountingHandle extends FilterHandle {
    CountingHandle(Handle next) {
      super(next);
    }

    @Override
    public Optional<Prefetch> prefetch() {
      return next.prefetch();
    }

    @Override
    public boolean takesPipes() {
      return next.takesPipes();
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws IOException {
      Outcome outcome = Outcome.DONE;
      try {
        outcome =
            next.perform(operation, patience, patience == Patience.LATER ? counting(end) : end);
        return outcome;
      } catch (IOException failure) {
        statistics.add(Count.ERROR, 1);
        throw failure;
      } finally {
        if (outcome != Outcome.DECLINED) {
          count(operation);
        }
      }
    }

    private Completion counting(Completion end) {
      return failure -> {
        statistics.add(Count.ERROR, failure == null ? 0 : 1);
        end.done(failure);
      };
    }

    private void count(Operation operation) {
      switch (operation.command()) {
        case READ -> count(Count.READ, Count.READ_BYTES, operation);
        case WRITE -> count(Count.WRITE, Count.WRITE_BYTES, operation);
        case TRIM -> statistics.add(Count.TRIM, 1);
        case WRITE_ZEROES -> statistics.add(Count.ZERO, 1);
        case CACHE -> statistics.add(Count.CACHE, 1);
        case BLOCK_STATUS -> statistics.add(Count.EXTENTS, 1);
        default -> statistics.add(Count.FLUSH, 1);
      }
      if (operation.fua() && operation.command().writes()) {
        statistics.add(Count.FUA, 1);
      }
    }

    private void count(Count count, Count bytes, Operation operation) {
      statistics.add(count, 1);
      statistics.add(bytes, operation.length());
    }
  }
}
