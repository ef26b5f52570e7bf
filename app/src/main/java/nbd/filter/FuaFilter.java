package nbd.filter;

import java.io.IOException;
import java.util.Optional;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/**
 * The option --fua: decides whether clients are offered FUA, and how FUA and flushes reach the
 * storage ({@link FuaMode}). It stands above the multi-conn filter, so that a flush that it makes
 * for FUA is the group's.
 */
public final class FuaFilter extends FilterBackend {
  private final FuaMode mode;

  /** Wraps the next backend. */
  public FuaFilter(Backend next, FuaMode mode) {
    super(next);
    this.mode = mode;
  }

  /** The way in which a command with FUA reaches the storage. */
  private enum Passed {
    WITH_FUA,
    /** Without FUA, and a flush follows it before it is answered. */
    WITH_FLUSH,
    WITHOUT
  }

  @Override
  protected Handle wrap(Handle handle, String exportName) throws NbdException {
    Capabilities below = handle.capabilities();
    Passed passed = passed(below);
    Capabilities shown = shown(below, passed);
    boolean changesNothing = shown.equals(below) && passed != Passed.WITH_FLUSH && !dropsFlushes();
    return changesNothing ? handle : new FuaHandle(handle, shown, passed);
  }

  private Passed passed(Capabilities below) throws NbdException {
    Passed flush = below.has(Capability.FLUSH) ? Passed.WITH_FLUSH : Passed.WITHOUT;
    Passed best = below.has(Capability.FUA) ? Passed.WITH_FUA : flush;
    return switch (mode) {
      case NONE, DISCARD -> Passed.WITHOUT;
      case PASS -> best;
      case EMULATE -> durable(flush, below, "no flush, so FUA cannot be emulated");
      case NATIVE, FORCE -> durable(best, below, "neither FUA nor flush");
    };
  }

  /** Refuses clients that write where nothing is durable. */
  private static Passed durable(Passed passed, Capabilities below, String missing)
      throws NbdException {
    if (passed == Passed.WITHOUT && below.has(Capability.WRITE)) {
      throw new NbdException(
          NbdError.ENOTSUP, "the backend has " + missing + "; use --fua=pass or --fua=none");
    }
    return passed;
  }

  private Capabilities shown(Capabilities below, Passed passed) {
    if (dropsFlushes()) {
      return below.with(Capability.FLUSH, Capability.FUA);
    }
    return passed == Passed.WITHOUT ? below.without(Capability.FUA) : below.with(Capability.FUA);
  }

  private boolean dropsFlushes() {
    return mode == FuaMode.FORCE || mode == FuaMode.DISCARD;
  }

  private final class FuaHandle extends FilterHandle {
    private final Passed passed;

    FuaHandle(Handle next, Capabilities shown, Passed passed) {
      super(next, next.facts().with(shown));
      this.passed = passed;
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
      if (operation.command() == Command.FLUSH && dropsFlushes()) {
        return patience == Patience.LATER ? Outcome.DECLINED : Outcome.DONE;
      }
      boolean durable = operation.fua() || mode == FuaMode.FORCE;
      return durable && operation.command().writes()
          ? performDurably(operation, patience, end)
          : next.perform(operation, patience, end);
    }

    private Outcome performDurably(Operation operation, Patience patience, Completion end)
        throws IOException {
      boolean flushes = passed == Passed.WITH_FLUSH;
      if (flushes && patience != Patience.WAIT) {
        return Outcome.DECLINED;
      }
      boolean fua = passed == Passed.WITH_FUA;
      CommandFlags flags = operation.flags();
      Operation below =
          fua == operation.fua()
              ? operation
              : operation.with(fua ? flags.with(CommandFlag.FUA) : flags.without(CommandFlag.FUA));
      Outcome outcome = next.perform(below, patience, end);
      if (flushes) {
        next.run(Operation.flushForFua());
      }
      return outcome;
    }
  }
}
