package nbd.protocol;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * The header of a reply: a simple reply, a chunk, or a chunk with an extended header. A mutable
 * view that a connection reads each of its replies with, so that it allocates nothing.
 */
public final class IncomingReply {
  /** The forms of replies. */
  public enum Form {
    /** 16 bytes: magic, error, cookie. */
    SIMPLE,
    /** 20 bytes: magic, flags, type, cookie, length. */
    CHUNK,
    /** 32 bytes: magic, flags, type, cookie, offset, length. */
    EXTENDED
  }

  private static final int SIMPLE_BYTES = 16;
  private static final int CHUNK_BYTES = 20;
  private static final int EXTENDED_BYTES = 32;

  private Form form = Form.SIMPLE;
  private int error;
  private int flags;
  private int type;
  private long cookie;
  private long offset;
  private long length;

  /**
   * Waits for the next reply's header.
   *
   * @return false if the stream ended before its first byte
   * @throws EOFException if the stream ended later
   * @throws ProtocolException if the header does not start with a magic number
   */
  public boolean read(WireInput in) throws IOException {
    if (!in.fill(SIMPLE_BYTES, headerBytes())) {
      if (in.buffered() == 0) {
        return false;
      }
      throw new EOFException("the stream ended in the middle of a reply");
    }
    ByteBuffer buffer = in.buffer();
    int magic = buffer.getInt(buffer.position());
    switch (magic) {
      case Magic.SIMPLE_REPLY -> readSimple(buffer);
      case Magic.STRUCTURED_REPLY -> readChunk(in, false);
      case Magic.EXTENDED_REPLY -> readChunk(in, true);
      default ->
          throw new ProtocolException(
              "a reply does not start with a magic number but with 0x%08x".formatted(magic));
    }
    return true;
  }

  /** Returns the bytes before a READ's data, if the reply has the form of the last one. */
  private int headerBytes() {
    return switch (form) {
      case SIMPLE -> SIMPLE_BYTES;
      case CHUNK -> CHUNK_BYTES + Long.BYTES;
      case EXTENDED -> EXTENDED_BYTES + Long.BYTES;
    };
  }

  private void readSimple(ByteBuffer buffer) {
    form = Form.SIMPLE;
    int start = buffer.position();
    error = buffer.getInt(start + 4);
    cookie = buffer.getLong(start + 8);
    buffer.position(start + SIMPLE_BYTES);
  }

  private void readChunk(WireInput in, boolean extended) throws IOException {
    form = extended ? Form.EXTENDED : Form.CHUNK;
    int bytes = extended ? EXTENDED_BYTES : CHUNK_BYTES;
    in.require(bytes);
    ByteBuffer buffer = in.buffer();
    int start = buffer.position();
    flags = Short.toUnsignedInt(buffer.getShort(start + 4));
    type = Short.toUnsignedInt(buffer.getShort(start + 6));
    cookie = buffer.getLong(start + 8);
    if (extended) {
      offset = buffer.getLong(start + 16);
      length = buffer.getLong(start + 24);
    } else {
      length = Integer.toUnsignedLong(buffer.getInt(start + 16));
    }
    buffer.position(start + bytes);
  }

  public Form form() {
    return form;
  }

  /** Returns the number of a simple reply's error, 0 for none. */
  public int error() {
    return error;
  }

  /** Says whether this chunk is the last one. */
  public boolean isDone() {
    return (flags & ChunkType.DONE) != 0;
  }

  /** Returns the chunk's type (unsigned 16 bits). */
  public int type() {
    return type;
  }

  public long cookie() {
    return cookie;
  }

  /** Returns the request's offset, which only an extended header has. */
  public long offset() {
    return offset;
  }

  /** Returns the length of the chunk's content in bytes; negative for 2^63 and more. */
  public long length() {
    return length;
  }
}
