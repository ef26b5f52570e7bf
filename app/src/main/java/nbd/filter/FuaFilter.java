package nbd.filter;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.backend.Backend;
import nbd.backend.Capabilities;
import nbd.backend.Capability;
import nbd.backend.Completion;
import nbd.backend.Fua;
import nbd.backend.Handle;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;

/**
 * Gives every backend that can flush a FUA: its own if it has one, else the command and then a
 * flush, before the command is answered.
 */
public final class FuaFilter extends FilterBackend {
  /** Wraps the next backend. */
  public FuaFilter(Backend next) {
    super(next);
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    Handle handle = next.open(exportName, readOnly);
    Capabilities can = handle.capabilities();
    boolean emulate = can.fua() == Fua.EMULATE && can.has(Capability.FLUSH);
    return emulate ? new EmulatingHandle(handle) : handle;
  }

  private static final class EmulatingHandle extends FilterHandle {
    EmulatingHandle(Handle next) {
      super(next);
    }

    @Override
    public Capabilities capabilities() {
      return next.capabilities().with(Fua.NATIVE);
    }

    @Override
    public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
      next.write(from, offset, flags.without(CommandFlag.FUA));
      flushIfFua(flags);
    }

    @Override
    public boolean beginRead(ByteBuffer into, long offset, Completion end) {
      return next.beginRead(into, offset, end);
    }

    @Override
    public boolean beginWrite(ByteBuffer from, long offset, CommandFlags flags, Completion end) {
      return !flags.has(CommandFlag.FUA) && next.beginWrite(from, offset, flags, end);
    }

    @Override
    public void trim(long offset, long length, CommandFlags flags) throws IOException {
      next.trim(offset, length, flags.without(CommandFlag.FUA));
      flushIfFua(flags);
    }

    @Override
    public void zero(long offset, long length, CommandFlags flags) throws IOException {
      next.zero(offset, length, flags.without(CommandFlag.FUA));
      flushIfFua(flags);
    }

    private void flushIfFua(CommandFlags flags) throws IOException {
      if (flags.has(CommandFlag.FUA)) {
        next.flush();
      }
    }
  }
}
