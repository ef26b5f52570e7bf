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

/** The answers to BLOCK_STATUS for the only context, base:allocation. Any thread may call. */
public final class BlockStatus {
  /** The number by which clients refer to the context. */
  public static final int CONTEXT = 1;

  /** The protocol allows 2^20 in a reply; with these a reply stays below 64 KiB. */
  static final int MOST_EXTENTS = 4000;

  /** The limit for a handle that knows little at a time; the client asks for the rest. */
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

  /** Returns the length of the longest reply. */
  int replyBytes(CommandFlags flags) {
    return format.extentsBytes(known ? most(flags) : 1);
  }

  /**
   * Asks the handle, and appends the whole reply.
   *
   * @param length of the range, not 0
   * @throws IOException if the handle failed; nothing is appended then
   */
  void answer(ByteBuffer out, long cookie, long offset, long length, CommandFlags flags)
      throws IOException {
    List<Extent> extents = known ? ask(offset, length, most(flags)) : List.of(Extent.data(length));
    // Only the last extent may run past the range, or past the longest that the reply can name. It
    // may end anywhere, but at a multiple of the block size.
    long longest = format.maximumExtent() & -(long) handle.blockSizes().minimum();
    long left = flags.has(CommandFlag.REQ_ONE) ? length : handle.size() - offset;
    format.extents(out, cookie, offset, CONTEXT, extents.size());
    for (Extent extent : extents) {
      long count = Math.min(Math.min(extent.length(), left), longest);
      format.extent(out, count, BaseAllocation.status(extent.hole(), extent.zero()));
      left -= count;
    }
  }

  /** Returns consecutive extents, each unlike the one before: at least one. */
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
