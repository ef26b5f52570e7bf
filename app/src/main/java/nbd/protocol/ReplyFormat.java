package nbd.protocol;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.StandardCharsets;

/**
 * The form of the replies on a connection, which the handshake decides. The methods that take a
 * buffer append to it; it is big-endian and has enough room. {@code cookie} and {@code offset} are
 * the request's.
 */
public enum ReplyFormat {
  /** Simple replies: magic, error, cookie, and the data of a READ. */
  SIMPLE(16, 16),
  /**
   * Chunks for READ, BLOCK_STATUS and all errors, which have a text. Other successes are simple
   * replies: every client takes them, and they are shorter.
   */
  STRUCTURED(20, 16),
  /** Chunks with a header of 32 bytes for everything; requests have an extended header, too. */
  EXTENDED(32, 32);

  /** Limit on the message of an error, as the protocol recommends for strings. */
  public static final int MAXIMUM_MESSAGE_BYTES = 256;

  /** Limit on a reply without content, in any form. */
  public static final int MAXIMUM_BYTES = 32 + 6 + MAXIMUM_MESSAGE_BYTES + 8;

  private static final int DONE = ChunkType.DONE;

  private final int headerBytes;
  private final int successBytes;

  ReplyFormat(int headerBytes, int successBytes) {
    this.headerBytes = headerBytes;
    this.successBytes = successBytes;
  }

  /** Says whether a READ is answered in chunks, of which there may be several before an error. */
  public boolean hasChunks() {
    return this != SIMPLE;
  }

  /** Returns the length of a reply without content. */
  public int successBytes() {
    return successBytes;
  }

  /** Returns the length of the header before a READ's data. */
  public int dataHeaderBytes() {
    return hasChunks() ? headerBytes + 8 : headerBytes;
  }

  /** Returns the length of a reply to BLOCK_STATUS in one context, with so many extents. */
  public int extentsBytes(int count) {
    return headerBytes + (this == EXTENDED ? 8 + 16 * count : 4 + 8 * count);
  }

  /** Returns the length of the longest extent that a reply can name. */
  public long maximumExtent() {
    return this == EXTENDED ? Long.MAX_VALUE : 0xffffffffL;
  }

  /** Appends the success of a command other than READ and BLOCK_STATUS. */
  public void success(ByteBuffer out, long cookie, long offset) {
    if (this == EXTENDED) {
      endOfRead(out, cookie, offset);
    } else {
      simple(out, NbdError.NONE, cookie);
    }
  }

  /** Appends the end of a READ whose content has been sent, or that has none. */
  public void endOfRead(ByteBuffer out, long cookie, long offset) {
    if (hasChunks()) {
      chunk(out, DONE, ChunkType.NONE, cookie, offset, 0);
    } else {
      simple(out, NbdError.NONE, cookie);
    }
  }

  /**
   * Appends the header of data that was read.
   *
   * @param at the data's offset in the export
   * @param length of the data, not 0
   * @param last whether this ends the reply, which cannot fail any more
   */
  public void data(ByteBuffer out, long cookie, long offset, long at, int length, boolean last) {
    if (hasChunks()) {
      chunk(out, last ? DONE : 0, ChunkType.OFFSET_DATA, cookie, offset, 8L + length);
      out.putLong(at);
    } else {
      simple(out, NbdError.NONE, cookie);
    }
  }

  /** Appends zeroes that were read. Needs chunks; the parameters are those of {@link #data}. */
  public void hole(ByteBuffer out, long cookie, long offset, long at, int length, boolean last) {
    chunk(out, last ? DONE : 0, ChunkType.OFFSET_HOLE, cookie, offset, 12);
    out.putLong(at).putInt(length);
  }

  /** Appends an error. */
  public void error(ByteBuffer out, long cookie, long offset, ErrorReply error) {
    error(out, ChunkType.ERROR, 6, cookie, offset, error);
  }

  /** Appends an error of a READ, and its offset in the export. */
  public void errorAt(ByteBuffer out, long cookie, long offset, ErrorReply error, long at) {
    error(out, ChunkType.ERROR_OFFSET, 14, cookie, offset, error);
    if (hasChunks()) {
      out.putLong(at);
    }
  }

  private void error(
      ByteBuffer out, ChunkType type, int bytes, long cookie, long offset, ErrorReply error) {
    if (!hasChunks()) {
      simple(out, error.error(), cookie);
      return;
    }
    ByteBuffer message = message(error);
    chunk(out, DONE, type, cookie, offset, (long) bytes + message.remaining());
    out.putInt(error.error().code()).putShort((short) message.remaining()).put(message);
  }

  /** Encodes the message, and cuts it between two characters if it is too long. */
  private static ByteBuffer message(ErrorReply error) {
    ByteBuffer bytes = ByteBuffer.allocate(MAXIMUM_MESSAGE_BYTES);
    StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(error.message()), bytes, true);
    return bytes.flip();
  }

  /**
   * Appends the header of the extents of a BLOCK_STATUS in one context. Needs chunks.
   *
   * @param context the context's number
   * @param count of the extents, at least 1
   * @param last whether this ends the reply: no other context follows
   */
  public void extents(
      ByteBuffer out, long cookie, long offset, int context, int count, boolean last) {
    boolean wide = this == EXTENDED;
    ChunkType type = wide ? ChunkType.BLOCK_STATUS_EXT : ChunkType.BLOCK_STATUS;
    chunk(out, last ? DONE : 0, type, cookie, offset, extentsBytes(count) - (long) headerBytes);
    out.putInt(context);
    if (wide) {
      out.putInt(count);
    }
  }

  /** Appends an extent: its length, at most {@link #maximumExtent}, and its status. */
  public void extent(ByteBuffer out, long length, int status) {
    if (this == EXTENDED) {
      out.putLong(length).putLong(status);
    } else {
      out.putInt((int) length).putInt(status);
    }
  }

  private void chunk(
      ByteBuffer out, int flags, ChunkType type, long cookie, long offset, long length) {
    boolean wide = this == EXTENDED;
    out.putInt(wide ? Magic.EXTENDED_REPLY : Magic.STRUCTURED_REPLY)
        .putShort((short) flags)
        .putShort((short) type.code())
        .putLong(cookie);
    if (wide) {
      out.putLong(offset).putLong(length);
    } else {
      out.putInt((int) length);
    }
  }

  private static void simple(ByteBuffer out, NbdError error, long cookie) {
    out.putInt(Magic.SIMPLE_REPLY).putInt(error.code()).putLong(cookie);
  }
}
