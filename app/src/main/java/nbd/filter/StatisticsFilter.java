package nbd.filter;

import java.io.IOException;
import java.util.concurrent.atomic.LongAdder;
import nbd.filter.Statistics.Count;
import nbd.protocol.Command;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
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
    private final LongAdder[] counts = new LongAdder[Command.values().length];
    private final LongAdder readBytes;
    private final LongAdder writeBytes;
    private final LongAdder fuas;
    private final LongAdder errors;

    CountingHandle(Handle next, Statistics statistics) {
      super(next);
      for (Command command : Command.values()) {
        counts[command.code()] = statistics.adder(count(command));
      }
      readBytes = statistics.adder(Count.READ_BYTES);
      writeBytes = statistics.adder(Count.WRITE_BYTES);
      fuas = statistics.adder(Count.FUA);
      errors = statistics.adder(Count.ERROR);
    }

    private static Count count(Command command) {
      return switch (command) {
        case READ -> Count.READ;
        case WRITE -> Count.WRITE;
        case TRIM -> Count.TRIM;
        case WRITE_ZEROES -> Count.ZERO;
        case CACHE -> Count.CACHE;
        case BLOCK_STATUS -> Count.EXTENTS;
        case FLUSH, DISC, RESIZE -> Count.FLUSH;
      };
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws IOException {
      Completion counted = patience == Patience.LATER ? failure -> ended(failure, end) : end;
      Outcome outcome = Outcome.DONE;
      try {
        outcome = next.perform(operation, patience, counted);
        return outcome;
      } catch (IOException failure) {
        errors.increment();
        throw failure;
      } finally {
        if (outcome != Outcome.DECLINED) {
          count(operation);
        }
      }
    }

    private void count(Operation operation) {
      Command command = operation.command();
      counts[command.code()].increment();
      if (command == Command.READ) {
        readBytes.add(operation.length());
      } else if (command == Command.WRITE) {
        writeBytes.add(operation.length());
      }
      if (operation.fua() && command.writes()) {
        fuas.increment();
      }
    }

    private void ended(@Nullable IOException failure, Completion end) {
      if (failure != null) {
        errors.increment();
      }
      end.done(failure);
    }
  }
}
