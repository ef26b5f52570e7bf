package nbd.transmission;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.ReplyFormat;
import nbd.storage.Capability;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.Operation;

/** The answers to BLOCK_STATUS, in one chunk for each context. Any thread may call. */
final class BlockStatus {
  /** The protocol allows 2^20 in a chunk; with these a chunk stays below 64 KiB. */
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
  int replyBytes(CommandFlags flags, Set<MetaContext> contexts) {
    int bytes = 0;
    for (MetaContext context : contexts) {
      bytes += format.extentsBytes(isKnown(context) ? most(flags) : 1);
    }
    return bytes;
  }

  /** Says whether the handle is asked; else all is data. */
  private boolean isKnown(MetaContext context) {
    return context != MetaContext.ALLOCATION || known;
  }

  /**
   * Asks the handle, and appends the whole reply.
   *
   * @param length of the range, not 0
   * @param contexts those that are asked for, at least one
   * @throws IOException if the handle failed in any context; nothing is appended then
   */
  void answer(
      ByteBuffer out,
      long cookie,
      long offset,
      long length,
      CommandFlags flags,
      Set<MetaContext> contexts)
      throws IOException {
    Map<MetaContext, List<Extent>> answers = new EnumMap<>(MetaContext.class);
    for (MetaContext context : contexts) {
      answers.put(context, ask(context, offset, length, most(flags)));
    }
    long most = flags.has(CommandFlag.REQ_ONE) ? length : handle.size() - offset;
    int remaining = answers.size();
    for (Map.Entry<MetaContext, List<Extent>> answer : answers.entrySet()) {
      MetaContext context = answer.getKey();
      List<Extent> extents = answer.getValue();
      remaining--;
      format.extents(out, cookie, offset, context.id(), extents.size(), remaining == 0);
      append(out, context, extents, most);
    }
  }

  /** Appends extents, of so many bytes at most. */
  private void append(ByteBuffer out, MetaContext context, List<Extent> extents, long most) {
    // Only the last extent may run past the range, or past the longest that the reply can name. It
    // may end anywhere, but at a multiple of the block size.
    long longest = format.maximumExtent() & -(long) handle.blockSizes().minimum();
    long left = most;
    for (Extent extent : extents) {
      long count = Math.min(Math.min(extent.length(), left), longest);
      format.extent(out, count, context.status(extent));
      left -= count;
    }
  }

  /** Returns consecutive extents, each unlike the one before: at least one. */
  private List<Extent> ask(MetaContext context, long offset, long length, int most)
      throws IOException {
    if (!isKnown(context)) {
      return List.of(Extent.data(length));
    }
    List<Extent> extents = new ArrayList<>();
    long at = offset;
    long end = offset + length;
    for (int i = 0; i < MOST_QUESTIONS && at < end && extents.size() < most; i++) {
      Operation question = context.question(at, end - at, most - extents.size());
      handle.run(question);
      for (Extent extent : question.extents()) {
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
