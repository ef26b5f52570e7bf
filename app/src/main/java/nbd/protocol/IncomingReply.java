package nbd.protocol;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * The header of a reply as a client reads it: of a simple reply, of a chunk, or of a chunk with an
 * extended header. A mutable view that one connection reads each of its replies with.
 */
public final class IncomingReply {
  /** The three forms. */
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
   * Takes the next reply's header; waits for it.
   *
   * @return false if the stream ended before its first byte
   * @throws EOFException if it ended later
   * @throws ProtocolException if it does not start with one of the magic numbers
   */
  public boolean read(WireInput in) throws IOException {
    if (!in.fill(SIMPLE_BYTES)) {
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

  /** Which of the three it is. */
  public Form form() {
    return form;
  }

  /** The error's number, 0 for none; of a simple reply only. */
  public int error() {
    return error;
  }

  /** Whether the reply is complete after this chunk. */
  public boolean isDone() {
    return (flags & ChunkType.DONE) != 0;
  }

  /** The chunk's type (unsigned 16 bits). */
  public int type() {
    return type;
  }

  /** The request's cookie. */
  public long cookie() {
    return cookie;
  }

  /** The request's offset; of an extended header only. */
  public long offset() {
    return offset;
  }

  /** How many bytes of the chunk follow; negative for 2^63 and more. */
  public long length() {
    return length;
  }
}
