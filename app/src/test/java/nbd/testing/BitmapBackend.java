package nbd.testing;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.function.UnaryOperator;
import nbd.filter.FilterBackend;
import nbd.filter.FilterHandle;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/**
 * Storage with a dirty bitmap, in which every third page of 64 KiB is dirty: the first, the fourth
 * and so on.
 */
public final class BitmapBackend extends FilterBackend {
  /** The size of a page. */
  public static final int PAGE = 1 << 16;

  private final UnaryOperator<String> names;

  /** Gives the storage one bitmap. */
  public BitmapBackend(Backend next, String bitmap) {
    this(next, export -> bitmap);
  }

  /**
   * Gives each export a bitmap of its own.
   *
   * @param names the bitmap's name by the export's; an empty one means that there is none
   */
  public BitmapBackend(Backend next, UnaryOperator<String> names) {
    super(next);
    this.names = names;
  }

  @Override
  protected Handle wrap(Handle handle, String exportName) {
    String name = names.apply(exportName);
    ExportFacts facts = handle.facts();
    return new WithBitmap(handle, name.isEmpty() ? facts : facts.withDirtyBitmap(name));
  }

  /** Returns the extents of a range in the bitmap. */
  public static List<Extent> dirtyExtents(long offset, long length, int most) {
    List<Extent> found = new ArrayList<>();
    long end = offset + length;
    for (long at = offset; at < end; ) {
      long stop = Math.min(end, (at / PAGE + 1) * PAGE);
      boolean dirty = at / PAGE % 3 == 0;
      (dirty ? Extent.dirty(stop - at) : Extent.clean(stop - at)).appendTo(found);
      at = stop;
      if (found.size() > most) {
        return found.subList(0, most);
      }
    }
    return found;
  }

  private static final class WithBitmap extends FilterHandle {
    WithBitmap(Handle next, ExportFacts shown) {
      super(next, shown);
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws IOException {
      if (!operation.asksForDirty()) {
        return next.perform(operation, patience, end);
      }
      if (patience != Patience.WAIT || facts().dirtyBitmap().isEmpty()) {
        throw new AssertionError("asked for a bitmap: " + patience + ", " + facts());
      }
      operation.answer(dirtyExtents(operation.offset(), operation.length(), operation.most()));
      return Outcome.DONE;
    }
  }
}
