package nbd.testing;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.filter.FilterBackend;
import nbd.filter.FilterHandle;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.Fua;
import nbd.storage.Handle;
import nbd.storage.ReadTarget;

/** Checks that the server keeps what a caller of {@link Handle} owes, and counts open handles. */
public final class ContractBackend extends FilterBackend {
  private final AtomicInteger open = new AtomicInteger();
  private final AtomicInteger opened = new AtomicInteger();
  private final List<String> violations = new CopyOnWriteArrayList<>();

  /** Wraps the backend under test conditions. */
  public ContractBackend(Backend next) {
    super(next);
  }

  /** Handles that were opened and not closed. */
  public int openHandles() {
    return open.get();
  }

  /** Handles that were opened. */
  public int openedHandles() {
    return opened.get();
  }

  /** What the caller did that it must not. */
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

    /** A call of the next handle. */
    @FunctionalInterface
    private interface Call<T> {
      T run() throws IOException;
    }

    private void check(boolean kept, String duty) {
      if (!kept) {
        violations.add(duty);
      }
    }

    private <T> T during(Call<T> call) throws IOException {
      running.incrementAndGet();
      check(closed.get() == 0, "a call on a closed handle");
      try {
        return call.run();
      } finally {
        running.decrementAndGet();
      }
    }

    private void has(Capability capability) {
      check(next.capabilities().has(capability), "called without " + capability);
    }

    private void range(long offset, long length) {
      boolean inside = offset >= 0 && length > 0 && offset + length <= next.size();
      check(inside, "range %d+%d of %d".formatted(offset, length, next.size()));
      int minimum = next.blockSizes().minimum();
      check(
          offset % minimum == 0 && length % minimum == 0, "not aligned: " + offset + "+" + length);
    }

    private void flags(CommandFlags flags, CommandFlag... allowed) {
      Set<CommandFlag> set = EnumSet.noneOf(CommandFlag.class);
      set.addAll(List.of(allowed));
      if (next.capabilities().fua() == Fua.NATIVE) {
        set.add(CommandFlag.FUA);
      }
      CommandFlags known = CommandFlags.NONE;
      for (CommandFlag flag : set) {
        known = known.with(flag);
      }
      check(flags.within(known), "flags " + flags);
    }

    @Override
    public void read(ByteBuffer into, long offset) throws IOException {
      range(offset, into.remaining());
      during(
          () -> {
            next.read(into, offset);
            return null;
          });
    }

    @Override
    public boolean readNow(ByteBuffer into, long offset) throws IOException {
      range(offset, into.remaining());
      return during(() -> next.readNow(into, offset));
    }

    @Override
    public boolean transferNow(long offset, long length, ReadTarget to) throws IOException {
      range(offset, length);
      return during(() -> next.transferNow(offset, length, to));
    }

    @Override
    public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
      has(Capability.WRITE);
      range(offset, from.remaining());
      flags(flags);
      during(
          () -> {
            next.write(from, offset, flags);
            return null;
          });
    }

    @Override
    public boolean writeNow(ByteBuffer from, long offset) throws IOException {
      has(Capability.WRITE);
      range(offset, from.remaining());
      return during(() -> next.writeNow(from, offset));
    }

    @Override
    public boolean fuaIsQuick() {
      check(closed.get() == 0, "a call on a closed handle");
      return next.fuaIsQuick();
    }

    private Completion counted(Completion end) {
      running.incrementAndGet();
      check(closed.get() == 0, "a call on a closed handle");
      return failure -> {
        running.decrementAndGet();
        end.done(failure);
      };
    }

    @Override
    public boolean beginRead(ByteBuffer into, long offset, Completion end) {
      range(offset, into.remaining());
      boolean begun = next.beginRead(into, offset, counted(end));
      if (!begun) {
        running.decrementAndGet();
      }
      return begun;
    }

    @Override
    public boolean beginWrite(ByteBuffer from, long offset, CommandFlags flags, Completion end) {
      has(Capability.WRITE);
      range(offset, from.remaining());
      flags(flags);
      boolean begun = next.beginWrite(from, offset, flags, counted(end));
      if (!begun) {
        running.decrementAndGet();
      }
      return begun;
    }

    @Override
    public void flush() throws IOException {
      has(Capability.FLUSH);
      during(
          () -> {
            next.flush();
            return null;
          });
    }

    @Override
    public void trim(long offset, long length, CommandFlags flags) throws IOException {
      has(Capability.TRIM);
      range(offset, length);
      flags(flags);
      during(
          () -> {
            next.trim(offset, length, flags);
            return null;
          });
    }

    @Override
    public void zero(long offset, long length, CommandFlags flags) throws IOException {
      has(Capability.ZERO);
      range(offset, length);
      flags(flags, CommandFlag.NO_HOLE, CommandFlag.FAST_ZERO);
      during(
          () -> {
            next.zero(offset, length, flags);
            return null;
          });
    }

    @Override
    public void cache(long offset, long length) throws IOException {
      has(Capability.CACHE);
      range(offset, length);
      during(
          () -> {
            next.cache(offset, length);
            return null;
          });
    }

    @Override
    public void close() throws IOException {
      check(closed.incrementAndGet() == 1, "closed twice");
      check(running.get() == 0, "closed while a call runs");
      open.decrementAndGet();
      next.close();
    }
  }
}
