package nbd.filter;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.filter.FuaDecision.Becomes;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Completion;
import nbd.storage.Handle;

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
      super(next);
      this.decision = decision;
    }

    @Override
    public Capabilities capabilities() {
      return decision.shown();
    }

    private boolean isDurable(CommandFlags flags) {
      return decision.forced() || flags.has(CommandFlag.FUA);
    }

    private CommandFlags passed(CommandFlags flags) {
      return isDurable(flags) && decision.becomes() == Becomes.FUA
          ? flags.with(CommandFlag.FUA)
          : flags.without(CommandFlag.FUA);
    }

    private boolean flushesAfter(CommandFlags flags) {
      return isDurable(flags) && decision.becomes() == Becomes.FLUSH;
    }

    private void flushAfter(CommandFlags flags) throws IOException {
      if (flushesAfter(flags)) {
        next.flushForFua();
      }
    }

    @Override
    public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
      next.write(from, offset, passed(flags));
      flushAfter(flags);
    }

    /** It takes no flags, and so cannot take one more. */
    @Override
    public boolean writeNow(ByteBuffer from, long offset) throws IOException {
      return !decision.forced() && next.writeNow(from, offset);
    }

    @Override
    public boolean beginRead(ByteBuffer into, long offset, Completion end) {
      return next.beginRead(into, offset, end);
    }

    /** Not where a flush has to follow, which would have to wait. */
    @Override
    public boolean beginWrite(ByteBuffer from, long offset, CommandFlags flags, Completion end) {
      return !flushesAfter(flags) && next.beginWrite(from, offset, passed(flags), end);
    }

    @Override
    public void flush() throws IOException {
      if (!decision.dropsFlushes()) {
        next.flush();
      }
    }

    @Override
    public void trim(long offset, long length, CommandFlags flags) throws IOException {
      next.trim(offset, length, passed(flags));
      flushAfter(flags);
    }

    @Override
    public void zero(long offset, long length, CommandFlags flags) throws IOException {
      next.zero(offset, length, passed(flags));
      flushAfter(flags);
    }
  }
}
