package nbd.filter;

import java.io.IOException;
import nbd.filter.FuaDecision.Becomes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/**
 * Changes what clients are offered of FUA, and what becomes of it and of their flushes ({@link
 * FuaMode}). Where a command becomes one with a flush behind it, it is answered after the flush; it
 * stands above the multi-conn filter, so that this flush is the group's.
 */
public final class FuaFilter extends FilterBackend {
  private final FuaMode mode;

  /** Wraps the next backend. */
  public FuaFilter(Backend next, FuaMode mode) {
    super(next);
    this.mode = mode;
  }

  /**
   * Opens a handle.
   *
   * @throws nbd.protocol.NbdException also if the mode cannot be had with it; the message says why
   */
  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    return openNext(
        exportName,
        readOnly,
        handle -> {
          FuaDecision decision = FuaDecision.of(mode, handle.capabilities());
          return decision.changesNothing(handle.capabilities())
              ? handle
              : new FuaHandle(handle, decision);
        });
  }

  private static final class FuaHandle extends FilterHandle {
    private final FuaDecision decision;

    FuaHandle(Handle next, FuaDecision decision) {
      super(next, next.facts().with(decision.shown()));
      this.decision = decision;
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws IOException {
      if (operation.command() == Command.FLUSH && decision.dropsFlushes()) {
        return patience == Patience.LATER ? Outcome.DECLINED : Outcome.DONE;
      }
      if (!operation.command().writes()) {
        return next.perform(operation, patience, end);
      }
      if (!decision.forced() && !operation.fua()) {
        return next.perform(operation, patience, end);
      }
      return performDurably(operation, patience, end);
    }

    private Outcome performDurably(Operation operation, Patience patience, Completion end)
        throws IOException {
      boolean flushes = decision.becomes() == Becomes.FLUSH;
      // A caller that asks for FUA at once is ready to wait for storage; one that does not is not.
      boolean forcedAtOnce = patience == Patience.AT_ONCE && !operation.fua();
      if (forcedAtOnce || (flushes && patience != Patience.WAIT)) {
        return Outcome.DECLINED;
      }
      boolean fua = decision.becomes() == Becomes.FUA;
      CommandFlags flags = operation.flags();
      Operation passed =
          fua == operation.fua()
              ? operation
              : operation.with(fua ? flags.with(CommandFlag.FUA) : flags.without(CommandFlag.FUA));
      Outcome outcome = next.perform(passed, patience, end);
      if (flushes) {
        next.run(Operation.flushForFua());
      }
      return outcome;
    }
  }
}
