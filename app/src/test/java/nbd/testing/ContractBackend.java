package nbd.testing;

import java.io.IOException;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import nbd.filter.FilterBackend;
import nbd.filter.FilterHandle;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/**
 * A check that the server keeps the duties of a caller of {@link Handle}; it counts open handles.
 */
public final class ContractBackend extends FilterBackend {
  private final AtomicInteger open = new AtomicInteger();
  private final AtomicInteger opened = new AtomicInteger();
  private final List<String> violations = new CopyOnWriteArrayList<>();

  /** Wraps the backend whose callers are checked. */
  public ContractBackend(Backend next) {
    super(next);
  }

  /** Returns the number of handles that were opened and not closed. */
  public int openHandles() {
    return open.get();
  }

  /** Returns the number of handles that were opened. */
  public int openedHandles() {
    return opened.get();
  }

  /** Returns the breaches of the contract so far. */
  public List<String> violations() {
    return List.copyOf(violations);
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    Handle handle = next.open(exportName, readOnly);
    open.incrementAndGet();
    opened.incrementAndGet();
    return new Checked(handle);
  }

  private final class Checked extends FilterHandle {
    private final AtomicInteger running = new AtomicInteger();
    private final AtomicInteger closed = new AtomicInteger();

    Checked(Handle next) {
      super(next);
    }

    private void check(boolean kept, Supplier<String> violation) {
      if (!kept) {
        violations.add(violation.get());
      }
    }

    private void has(Capability capability) {
      check(next.capabilities().has(capability), () -> "called without " + capability);
    }

    private void range(long offset, long length) {
      boolean inside = offset >= 0 && length > 0 && offset + length <= next.size();
      check(inside, () -> "range %d+%d of %d".formatted(offset, length, next.size()));
      int minimum = next.blockSizes().minimum();
      boolean isAligned = offset % minimum == 0 && length % minimum == 0;
      check(isAligned, () -> "not aligned: " + offset + "+" + length);
    }

    private void flags(CommandFlags flags, CommandFlag... allowed) {
      CommandFlags known =
          next.capabilities().has(Capability.FUA)
              ? CommandFlags.of(CommandFlag.FUA)
              : CommandFlags.NONE;
      for (CommandFlag flag : allowed) {
        known = known.with(flag);
      }
      check(flags.within(known), () -> "flags " + flags);
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws IOException {
      check(operation);
      running.incrementAndGet();
      check(closed.get() == 0, () -> "a call on a closed handle");
      Completion counted =
          patience == Patience.LATER
              ? failure -> {
                running.decrementAndGet();
                end.done(failure);
              }
              : end;
      Outcome outcome = Outcome.DECLINED;
      try {
        outcome = next.perform(operation, patience, counted);
        return outcome;
      } finally {
        if (outcome != Outcome.BEGUN) {
          running.decrementAndGet();
        }
      }
    }

    private void check(Operation operation) {
      switch (operation.command()) {
        case READ -> flags(operation.flags());
        case WRITE -> {
          has(Capability.WRITE);
          flags(operation.flags());
        }
        case FLUSH -> has(Capability.FLUSH);
        case TRIM -> {
          has(Capability.TRIM);
          flags(operation.flags());
        }
        case WRITE_ZEROES -> {
          has(Capability.ZERO);
          flags(operation.flags(), CommandFlag.NO_HOLE, CommandFlag.FAST_ZERO);
        }
        case CACHE -> has(Capability.CACHE);
        case BLOCK_STATUS -> {
          if (operation.asksForDirty()) {
            check(facts().dirtyBitmap().isPresent(), () -> "asked for a bitmap without one");
          } else {
            has(Capability.EXTENTS);
          }
        }
        default -> check(false, () -> "command " + operation.command());
      }
      if (operation.command() != Command.FLUSH) {
        range(operation.offset(), operation.length());
      }
    }

    @Override
    public void close() throws IOException {
      check(closed.incrementAndGet() == 1, () -> "closed twice");
      check(running.get() == 0, () -> "closed while a call runs");
      open.decrementAndGet();
      next.close();
    }
  }
}
