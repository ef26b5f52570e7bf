package nbd.protocol;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.StandardCharsets;

/**
 * How replies look on a connection, which the handshake decides once: the one place that knows
 * their layouts. All methods append to a big-endian buffer with room enough. {@code cookie} and
 * {@code offset} are the request's.
 */
public enum ReplyFormat {
  /** Simple replies, nothing else. */
  SIMPLE(SimpleReply.BYTES, SimpleReply.BYTES),
  /**
   * Chunks for READ, BLOCK_STATUS and all errors, which then have a text. Other successes are
   * simple replies: every client takes them, and they are shorter.
   */
  STRUCTURED(20, SimpleReply.BYTES),
  /** Chunks with a header of 32 bytes for everything; requests have an extended header, too. */
  EXTENDED(32, 32);

  /** The longest message of an error: what the protocol recommends for every string. */
  public static final int MAXIMUM_MESSAGE_BYTES = 256;

  /** The longest reply without content, in bytes, whatever the format. */
  public static final int MAXIMUM_BYTES = 32 + 6 + MAXIMUM_MESSAGE_BYTES + 8;

  private static final int DONE = ChunkType.DONE;

  private final int headerBytes;
  private final int successBytes;

  ReplyFormat(int headerBytes, int successBytes) {
    this.headerBytes = headerBytes;
    this.successBytes = successBytes;
  }

  /**
   * Whether replies are chunks: then a READ can be answered in several pieces, and fail after some.
   */
  public boolean hasChunks() {
    return this != SIMPLE;
  }

  /** The bytes of a reply without content. */
  public int successBytes() {
    return successBytes;
  }

  /** The bytes that precede a READ's data. */
  public int dataHeaderBytes() {
    return hasChunks() ? headerBytes + 8 : headerBytes;
  }

  /** The bytes of a reply to BLOCK_STATUS with so many extents. */
  public int extentsBytes(int count) {
    return headerBytes + (this == EXTENDED ? 8 + 16 * count : 4 + 8 * count);
  }

  /** The longest extent that a reply to BLOCK_STATUS can tell. */
  public long maximumExtent() {
    return this == EXTENDED ? Long.MAX_VALUE : 0xffffffffL;
  }

  /** Success of a command other than READ and BLOCK_STATUS. */
  public void success(ByteBuffer out, long cookie, long offset) {
    if (this == EXTENDED) {
      chunk(out, DONE, ChunkType.NONE, cookie, offset, 0);
    } else {
      SimpleReply.write(out, NbdError.NONE, cookie);
    }
  }

  /** Success of a READ all of whose content has been sent, or that has none. */
  public void endOfRead(ByteBuffer out, long cookie, long offset) {
    if (hasChunks()) {
      chunk(out, DONE, ChunkType.NONE, cookie, offset, 0);
    } else {
      SimpleReply.write(out, NbdError.NONE, cookie);
    }
  }

  /**
   * What precedes data that was read.
   *
   * @param at where the data is in the export
   * @param length of the data, not 0
   * @param last whether this ends the reply, and can no longer fail
   */
  public void data(ByteBuffer out, long cookie, long offset, long at, int length, boolean last) {
    if (hasChunks()) {
      chunk(out, last ? DONE : 0, ChunkType.OFFSET_DATA, cookie, offset, 8L + length);
      out.putLong(at);
    } else {
      SimpleReply.write(out, NbdError.NONE, cookie);
    }
  }

  /** Zeroes that were read; only where there are chunks. The parameters are those of data. */
  public void hole(ByteBuffer out, long cookie, long offset, long at, int length, boolean last) {
    chunk(out, last ? DONE : 0, ChunkType.OFFSET_HOLE, cookie, offset, 12);
    out.putLong(at).putInt(length);
  }

  /** Failure. */
  public void error(ByteBuffer out, long cookie, long offset, ErrorReply error) {
    if (!hasChunks()) {
      SimpleReply.write(out, error.error(), cookie);
      return;
    }
    ByteBuffer message = message(error);
    chunk(out, DONE, ChunkType.ERROR, cookie, offset, 6L + message.remaining());
    putError(out, error, message);
  }

  /** Failure of a READ, and where in the export it happened. */
  public void errorAt(ByteBuffer out, long cookie, long offset, ErrorReply error, long at) {
    if (!hasChunks()) {
      SimpleReply.write(out, error.error(), cookie);
      return;
    }
    ByteBuffer message = message(error);
    chunk(out, DONE, ChunkType.ERROR_OFFSET, cookie, offset, 14L + message.remaining());
    putError(out, error, message);
    out.putLong(at);
  }

  private static void putError(ByteBuffer out, ErrorReply error, ByteBuffer message) {
    out.putInt(error.error().code()).putShort((short) message.remaining()).put(message);
  }

  /** A message that is too long is cut between two characters. */
  private static ByteBuffer message(ErrorReply error) {
    ByteBuffer bytes = ByteBuffer.allocate(MAXIMUM_MESSAGE_BYTES);
    StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(error.message()), bytes, true);
    return bytes.flip();
  }

  /**
   * What precedes the extents of a BLOCK_STATUS; only where there are chunks.
   *
   * @param context the context's number
   * @param count of the extents, at least 1
   */
  public void extents(ByteBuffer out, long cookie, long offset, int context, int count) {
    boolean wide = this == EXTENDED;
    ChunkType type = wide ? ChunkType.BLOCK_STATUS_EXT : ChunkType.BLOCK_STATUS;
    chunk(out, DONE, type, cookie, offset, extentsBytes(count) - (long) headerBytes);
    out.putInt(context);
    if (wide) {
      out.putInt(count);
    }
  }

  /** An extent of a BLOCK_STATUS: its length, at most {@link #maximumExtent}, and its status. */
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
}
