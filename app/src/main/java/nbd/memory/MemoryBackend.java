package nbd.memory;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicReferenceArray;
import nbd.protocol.CommandFlag;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.DirectMemory;
import nbd.storage.ExportFacts;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.storage.ThreadModel;
import nbd.storage.Zeroes;
import org.jspecify.annotations.Nullable;

/**
 * A sparse RAM disk, shared by all connections: memory is taken page by page when something is
 * written, outside the heap, and given back by trim and zero. When the JVM has no more, writes fail
 * with ENOSPC; requests and new connections have what {@link DirectMemory} reserves for them.
 *
 * <p>Invariant: a page that was replaced by a hole is never reused, so a command that still reads
 * or writes it does no harm: it overlaps the trim or zero, and either order is right.
 */
public final class MemoryBackend implements Backend {
  static final int PAGE = 1 << 16;
  private static final int TABLE = 1 << 14;
  private static final long LONGEST_CLEARED_AT_ONCE = 1 << 20;

  /** The largest size: 2^20 tables of 2^14 pages of 64 KiB. */
  public static final long MAXIMUM_SIZE = ((long) PAGE * TABLE) << 20;

  private static final Capabilities WRITABLE =
      Capabilities.of(
          Capability.FUA,
          Capability.WRITE,
          Capability.FLUSH,
          Capability.TRIM,
          Capability.ZERO,
          // Filling with zeroes is never slower than copying data.
          Capability.FAST_ZERO,
          Capability.CACHE,
          Capability.EXTENTS,
          Capability.MULTI_CONN);

  private final long size;
  private final DirectMemory memory;
  private final AtomicReferenceArray<@Nullable AtomicReferenceArray<@Nullable ByteBuffer>> tables;

  /** Serves so many bytes, at most {@link #MAXIMUM_SIZE}. */
  public MemoryBackend(long size) {
    this(size, DirectMemory.JVM);
  }

  /** Serves so many bytes of a test's own memory. */
  MemoryBackend(long size, DirectMemory memory) {
    if (size < 0 || size > MAXIMUM_SIZE) {
      throw new IllegalArgumentException("size " + size);
    }
    this.size = size;
    this.memory = memory;
    long perTable = (long) PAGE * TABLE;
    this.tables = new AtomicReferenceArray<>((int) ((size + perTable - 1) / perTable));
  }

  @Override
  public String name() {
    return "memory";
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public boolean isVolatile() {
    return true;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) {
    return new MemoryHandle(readOnly ? WRITABLE.readOnly() : WRITABLE);
  }

  @Override
  public void close() {
    // The pages are garbage collected.
  }

  private @Nullable ByteBuffer page(long offset) {
    long number = offset / PAGE;
    AtomicReferenceArray<@Nullable ByteBuffer> table = tables.get((int) (number / TABLE));
    return table == null ? null : table.get((int) (number % TABLE));
  }

  private ByteBuffer pageForWriting(long offset) throws NbdException {
    ByteBuffer present = page(offset);
    if (present != null) {
      return present;
    }
    long number = offset / PAGE;
    int index = (int) (number / TABLE);
    AtomicReferenceArray<@Nullable ByteBuffer> table = tables.get(index);
    if (table == null) {
      AtomicReferenceArray<@Nullable ByteBuffer> made = new AtomicReferenceArray<>(TABLE);
      AtomicReferenceArray<@Nullable ByteBuffer> other =
          tables.compareAndExchange(index, null, made);
      table = other == null ? made : other;
    }
    ByteBuffer made;
    try {
      made = memory.allocate(PAGE);
    } catch (NbdException none) {
      throw new NbdException(NbdError.ENOSPC, "memory: it is full: " + none.getMessage());
    }
    ByteBuffer other = table.compareAndExchange((int) (number % TABLE), null, made);
    return other == null ? made : other;
  }

  private void dropPage(long offset) {
    long number = offset / PAGE;
    AtomicReferenceArray<@Nullable ByteBuffer> table = tables.get((int) (number / TABLE));
    if (table != null) {
      table.set((int) (number % TABLE), null);
    }
  }

  private final class MemoryHandle extends Handle {
    MemoryHandle(Capabilities capabilities) {
      super(new ExportFacts(size, capabilities));
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws NbdException {
      if (patience == Patience.LATER || (patience == Patience.AT_ONCE && !isShort(operation))) {
        return Outcome.DECLINED;
      }
      long offset = operation.offset();
      long length = operation.length();
      switch (operation.command()) {
        case READ -> fill(operation.data(), offset);
        case WRITE -> store(operation.data(), offset);
        case TRIM -> zeroExisting(offset, length, true);
        case WRITE_ZEROES -> zero(offset, length, !operation.flags().has(CommandFlag.NO_HOLE));
        case BLOCK_STATUS -> operation.answer(extentsOf(offset, length, operation.most()));
        default -> {
          // A FLUSH or CACHE has nothing to do in RAM.
        }
      }
      return Outcome.DONE;
    }

    private boolean isShort(Operation operation) {
      return switch (operation.command()) {
        case TRIM, WRITE_ZEROES -> operation.length() <= LONGEST_CLEARED_AT_ONCE;
        case BLOCK_STATUS -> false;
        default -> !operation.isTransfer();
      };
    }

    private void fill(ByteBuffer into, long offset) {
      long at = offset;
      while (into.hasRemaining()) {
        int inPage = (int) (at % PAGE);
        int count = Math.min(into.remaining(), PAGE - inPage);
        ByteBuffer page = page(at);
        if (page == null) {
          Zeroes.put(into, count);
        } else {
          into.put(into.position(), page, inPage, count);
          into.position(into.position() + count);
        }
        at += count;
      }
    }

    private void store(ByteBuffer from, long offset) throws NbdException {
      long at = offset;
      while (from.hasRemaining()) {
        int inPage = (int) (at % PAGE);
        int count = Math.min(from.remaining(), PAGE - inPage);
        pageForWriting(at).put(inPage, from, from.position(), count);
        from.position(from.position() + count);
        at += count;
      }
    }

    private void zero(long offset, long length, boolean mayPunch) throws NbdException {
      if (!mayPunch) {
        for (long at = offset; at < offset + length; at += PAGE - at % PAGE) {
          pageForWriting(at);
        }
      }
      zeroExisting(offset, length, mayPunch);
    }

    private void zeroExisting(long offset, long length, boolean mayPunch) {
      long at = offset;
      long end = offset + length;
      while (at < end) {
        int inPage = (int) (at % PAGE);
        int count = (int) Math.min(end - at, PAGE - inPage);
        ByteBuffer page = page(at);
        if (page == null) {
          at = nextPage(at, end);
          continue;
        }
        if (mayPunch && count == PAGE) {
          dropPage(at);
        } else {
          Zeroes.put(page.duplicate().position(inPage), count);
        }
        at += count;
      }
    }

    /** The begin of the next page; of the next table, where the table is missing. */
    private long nextPage(long at, long end) {
      long perTable = (long) PAGE * TABLE;
      boolean noTable = tables.get((int) (at / perTable)) == null;
      long step = noTable ? perTable : PAGE;
      return Math.min(end, at - at % step + step);
    }

    private List<Extent> extentsOf(long offset, long length, int most) {
      List<Extent> extents = new ArrayList<>();
      long end = offset + length;
      long at = offset;
      while (at < end && extents.size() < most) {
        boolean hole = page(at) == null;
        long start = at;
        do {
          at = hole ? nextPage(at, end) : Math.min(end, at - at % PAGE + PAGE);
        } while (at < end && (page(at) == null) == hole);
        extents.add(hole ? Extent.hole(at - start) : Extent.data(at - start));
      }
      return extents;
    }

    @Override
    public void close() {
      // Nothing is held.
    }
  }
}
