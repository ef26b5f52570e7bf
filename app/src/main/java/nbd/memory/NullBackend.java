package nbd.memory;

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
import nbd.storage.Zeroes;

/** Storage that reads zeroes and forgets writes, for measuring the server itself. */
public final class NullBackend implements Backend {
  private static final Capabilities WRITABLE =
      Capabilities.of(
          Capability.FUA,
          Capability.WRITE,
          Capability.FLUSH,
          Capability.TRIM,
          Capability.ZERO,
          Capability.FAST_ZERO,
          Capability.CACHE,
          Capability.MULTI_CONN);

  private final long size;

  /** Serves so many bytes. */
  public NullBackend(long size) {
    this.size = size;
  }

  @Override
  public String name() {
    return "null";
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) {
    return new NullHandle(size, readOnly ? WRITABLE.readOnly() : WRITABLE);
  }

  @Override
  public void close() {
    // Nothing is held.
  }

  private static final class NullHandle extends Handle {
    NullHandle(long size, Capabilities capabilities) {
      super(new ExportFacts(size, capabilities));
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end) {
      if (patience == Patience.LATER || operation.isTransfer()) {
        return Outcome.DECLINED;
      }
      switch (operation.command()) {
        case READ -> Zeroes.put(operation.data(), (int) operation.length());
        case WRITE -> operation.data().position(operation.data().limit());
        default -> {
          // Nothing is kept.
        }
      }
      return Outcome.DONE;
    }

    @Override
    public void close() {
      // Nothing is held.
    }
  }
}
