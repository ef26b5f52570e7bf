package nbd.rbd;

import java.lang.foreign.Arena;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.util.ArrayList;
import java.util.List;
import nbd.storage.Extent;
import nbd.storage.Operation;

/**
 * The answer to a BLOCK_STATUS, put together from what librbd reports in the order of offsets:
 * stretches that hold data, or that differ. Threads of the library report; the caller's monitor
 * orders them.
 */
@SuppressWarnings("restricted") // being called by the library is what this class is for
final class Differences {
  private final Operation question;
  private final long end;
  private final List<Extent> extents = new ArrayList<>();
  private long at;

  /**
   * Begins.
   *
   * @param length of the part of the question's range that is asked about
   */
  Differences(Operation question, long length) {
    this.question = question;
    this.at = question.offset();
    this.end = question.offset() + length;
  }

  MemorySegment callback(Linker linker, Arena arena) {
    try {
      MethodType type =
          MethodType.methodType(int.class, long.class, long.class, int.class, long.class);
      return linker.upcallStub(
          MethodHandles.lookup().findVirtual(Differences.class, "report", type).bindTo(this),
          LibRbd.DIFFERENCE,
          arena);
    } catch (ReflectiveOperationException impossible) {
      throw new LinkageError("report", impossible);
    }
  }

  /** Is called by the library. Data that was discarded since an older snapshot is a change too. */
  @SuppressWarnings("unused") // by its name
  private synchronized int report(long offset, long length, int exists, long unused) {
    boolean isDirty = question.asksForDirty();
    long from = Math.max(offset, at);
    long to = Math.min(offset + length, end);
    if (from < to && (isDirty || exists != 0)) {
      fill(from);
      (isDirty ? Extent.dirty(to - from) : Extent.data(to - from)).appendTo(extents);
      at = to;
    }
    return 0;
  }

  private void fill(long to) {
    if (at < to) {
      long length = to - at;
      (question.asksForDirty() ? Extent.clean(length) : Extent.hole(length)).appendTo(extents);
      at = to;
    }
  }

  /** Returns the answer. */
  synchronized List<Extent> extents() {
    fill(end);
    return extents.subList(0, Math.min(extents.size(), question.most()));
  }
}
