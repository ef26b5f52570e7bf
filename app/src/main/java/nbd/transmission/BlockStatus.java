package nbd.transmission;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import nbd.protocol.BaseAllocation;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.ReplyFormat;
import nbd.storage.Capability;
import nbd.storage.Extent;
import nbd.storage.Handle;

/** Answers BLOCK_STATUS for the one context there is, base:allocation. Used by any thread. */
public final class BlockStatus {
  /** By which number the client refers to the context. */
  public static final int CONTEXT = 1;

  /**
   * A fragmented export has any number of extents. The protocol allows 2^20 in a reply; with these
   * a reply stays below 64 KiB, and one more question in 4000 is not felt.
   */
  static final int MOST_EXTENTS = 4000;

  /** A handle that knows little at a time is not asked for ever: the client asks again. */
  private static final int MOST_QUESTIONS = 64;

  private final Handle handle;
  private final ReplyFormat format;
  private final boolean known;

  BlockStatus(Handle handle, ReplyFormat format) {
    this.handle = handle;
    this.format = format;
    this.known = handle.capabilities().has(Capability.EXTENTS);
  }

  private static int most(CommandFlags flags) {
    return flags.has(CommandFlag.REQ_ONE) ? 1 : MOST_EXTENTS;
  }

  /** The longest reply, in bytes. */
  int replyBytes(CommandFlags flags) {
    return format.extentsBytes(known ? most(flags) : 1);
  }

  /**
   * Asks the handle, and appends the whole reply.
   *
   * @param length of the range, not 0
   * @throws IOException if the handle could not say; nothing is appended then
   */
  void answer(ByteBuffer out, long cookie, long offset, long length, CommandFlags flags)
      throws IOException {
    List<Extent> extents = known ? ask(offset, length, most(flags)) : List.of(Extent.data(length));
    // Where an extent ends that runs past the range, or past what the layout can tell, does no harm
    // unless it is not a multiple of the block size.
    long most =
        flags.has(CommandFlag.REQ_ONE)
            ? Math.min(length, longest())
            : Math.min(handle.size() - offset, Long.MAX_VALUE);
    format.extents(out, cookie, offset, CONTEXT, extents.size());
    for (Extent extent : extents) {
      long told = Math.min(Math.min(extent.length(), most), longest());
      format.extent(out, told, BaseAllocation.status(extent.hole(), extent.zero()));
      most -= told;
    }
  }

  private long longest() {
    return format.maximumExtent() & -(long) handle.blockSizes().minimum();
  }

  /** Consecutive extents, each unlike the one before: at least one. */
  private List<Extent> ask(long offset, long length, int most) throws IOException {
    List<Extent> extents = new ArrayList<>();
    long at = offset;
    long end = offset + length;
    for (int i = 0; i < MOST_QUESTIONS && at < end && extents.size() < most; i++) {
      for (Extent extent : handle.extents(at, end - at, most - extents.size())) {
        extent.appendTo(extents);
        at += extent.length();
      }
    }
    if (extents.isEmpty()) {
      throw new IllegalStateException("a handle has no extent at " + offset);
    }
    return extents.size() > most ? extents.subList(0, most) : extents;
  }
}
