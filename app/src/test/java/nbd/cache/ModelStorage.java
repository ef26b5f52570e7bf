package nbd.cache;

import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicReference;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.ThreadModel;
import nbd.testing.PlainHandle;

/**
 * Storage of a few half sectors, each of which is one number, with as few steps as show every race:
 * small enough for a model checker. A call makes its change at one moment between its begin and its
 * end; a flush makes durable the content from its begin.
 */
final class ModelStorage implements Backend {
  /** The bytes that one number stands for. */
  static final int UNIT = 256;

  /** The number that trimmed storage reads as. */
  static final int TRIMMED = 99;

  private final AtomicReference<State> state;
  private final Capabilities capabilities;
  private final long size;

  ModelStorage(int size) {
    this.size = size;
    this.capabilities =
        Capabilities.of(
            Capability.FUA, Capability.WRITE, Capability.FLUSH, Capability.TRIM, Capability.ZERO);
    int units = size / UNIT;
    this.state =
        new AtomicReference<>(
            new State(new int[units], new int[units], new int[units], new int[units]));
  }

  /** All content at one moment; immutable. */
  static final class State {
    private final int[] content;

    /** The number of changes of each half sector. */
    private final int[] changes;

    private final int[] durable;

    /** The number of the change as of which each half sector is durable. */
    private final int[] covered;

    State(int[] content, int[] changes, int[] durable, int[] covered) {
      this.content = content;
      this.changes = changes;
      this.durable = durable;
      this.covered = covered;
    }

    State changed(int from, int[] values, boolean isDurable) {
      int to = from + values.length;
      int[] newContent = content.clone();
      System.arraycopy(values, 0, newContent, from, values.length);
      int[] newChanges = changes.clone();
      for (int i = from; i < to; i++) {
        newChanges[i]++;
      }
      int[] newDurable = durable;
      int[] newCovered = covered;
      if (isDurable) {
        newDurable = durable.clone();
        System.arraycopy(values, 0, newDurable, from, values.length);
        newCovered = covered.clone();
        System.arraycopy(newChanges, from, newCovered, from, values.length);
      }
      return new State(newContent, newChanges, newDurable, newCovered);
    }

    /** Makes an earlier moment's content durable, except where newer content already is. */
    State flushed(State then) {
      int[] newDurable = durable.clone();
      int[] newCovered = covered.clone();
      for (int i = 0; i < durable.length; i++) {
        if (then.changes[i] > covered[i]) {
          newDurable[i] = then.content[i];
          newCovered[i] = then.changes[i];
        }
      }
      return new State(content, changes, newDurable, newCovered);
    }

    void read(ByteBuffer into, int from) {
      for (int unit = from; into.hasRemaining(); unit++) {
        into.putInt(into.position(), content[unit]);
        into.position(into.position() + UNIT);
      }
    }

    static int[] values(ByteBuffer from) {
      int[] values = new int[from.remaining() / UNIT];
      for (int i = 0; i < values.length; i++) {
        values[i] = from.getInt(from.position() + i * UNIT);
      }
      return values;
    }

    static int[] filled(long length, int value) {
      int[] values = new int[(int) (length / UNIT)];
      Arrays.fill(values, value);
      return values;
    }
  }

  int durableAt(int offset) {
    return state.get().durable[offset / UNIT];
  }

  @Override
  public String name() {
    return "model";
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) {
    return new ModelHandle();
  }

  @Override
  public void close() {
    // Nothing is held.
  }

  private final class ModelHandle extends PlainHandle {
    ModelHandle() {
      super(new ExportFacts(size, capabilities));
    }

    /** A call's change at one moment. */
    @FunctionalInterface
    private interface Step {
      State from(State now);
    }

    private void change(Step step) {
      State before = state.get();
      while (!state.compareAndSet(before, step.from(before))) {
        before = state.get();
      }
    }

    @Override
    protected void doRead(ByteBuffer into, long offset) {
      state.get().read(into, (int) offset / UNIT);
    }

    @Override
    protected void doWrite(ByteBuffer from, long offset, CommandFlags flags) {
      boolean isDurable = flags.has(CommandFlag.FUA);
      int[] values = State.values(from);
      change(now -> now.changed((int) offset / UNIT, values, isDurable));
    }

    @Override
    protected void doFlush() {
      State then = state.get();
      change(now -> now.flushed(then));
    }

    @Override
    protected void doTrim(long offset, long length, CommandFlags flags) {
      int[] values = State.filled(length, TRIMMED);
      change(now -> now.changed((int) offset / UNIT, values, flags.has(CommandFlag.FUA)));
    }

    @Override
    protected void doZero(long offset, long length, CommandFlags flags) {
      int[] values = State.filled(length, 0);
      change(now -> now.changed((int) offset / UNIT, values, flags.has(CommandFlag.FUA)));
    }

    @Override
    protected void doCache(long offset, long length) {
      throw new AssertionError("the cache reads itself");
    }

    @Override
    public void close() {
      // Nothing is held.
    }
  }
}
