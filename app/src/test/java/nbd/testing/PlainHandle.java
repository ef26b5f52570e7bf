package nbd.testing;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import nbd.protocol.CommandFlags;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/** A handle of a test's storage, with a method for each command; those that it lacks fail. */
public abstract class PlainHandle extends Handle {
  /** Makes a handle on an export with these facts. */
  protected PlainHandle(ExportFacts facts) {
    super(facts);
  }

  @Override
  public Outcome perform(Operation operation, Patience patience, Completion end)
      throws IOException {
    if (patience == Patience.LATER) {
      return begins(operation, end) ? Outcome.BEGUN : Outcome.DECLINED;
    }
    if (patience == Patience.AT_ONCE && (operation.isTransfer() || !isQuick(operation))) {
      return Outcome.DECLINED;
    }
    long offset = operation.offset();
    long length = operation.length();
    CommandFlags flags = operation.flags();
    switch (operation.command()) {
      case READ -> doRead(operation.data(), offset);
      case WRITE -> doWrite(operation.data(), offset, flags);
      case FLUSH -> doFlush();
      case TRIM -> doTrim(offset, length, flags);
      case WRITE_ZEROES -> doZero(offset, length, flags);
      case CACHE -> doCache(offset, length);
      case BLOCK_STATUS -> operation.answer(doExtents(offset, length, operation.most()));
      default -> throw unused();
    }
    return Outcome.DONE;
  }

  private static AssertionError unused() {
    return new AssertionError("not used");
  }

  /** Says whether the operation is done at once; by default it is not. */
  protected boolean isQuick(Operation operation) {
    return false;
  }

  /** Begins the operation, and says whether it has; by default it does not. */
  protected boolean begins(Operation operation, Completion end) {
    return false;
  }

  protected void doRead(ByteBuffer into, long offset) throws IOException {
    throw unused();
  }

  protected void doWrite(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    throw unused();
  }

  protected void doFlush() throws IOException {
    throw unused();
  }

  protected void doTrim(long offset, long length, CommandFlags flags) throws IOException {
    throw unused();
  }

  protected void doZero(long offset, long length, CommandFlags flags) throws IOException {
    throw unused();
  }

  /** Reads ahead. */
  protected void doCache(long offset, long length) throws IOException {
    throw unused();
  }

  /** Returns extents; by default a single one of data. */
  protected List<Extent> doExtents(long offset, long length, int most) throws IOException {
    return List.of(Extent.data(length));
  }
}
