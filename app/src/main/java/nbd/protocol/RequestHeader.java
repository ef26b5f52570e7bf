package nbd.protocol;

import java.nio.ByteBuffer;

/**
 * A request of the transmission phase, 28 bytes in a big-endian buffer: magic, flags, type, cookie,
 * offset, length. A mutable view that one connection reads each of its requests with, so that none
 * is allocated for it.
 */
public final class RequestHeader {
  /** The bytes of a request before its payload. */
  public static final int BYTES = 28;

  private int flags;
  private int type;
  private long cookie;
  private long offset;
  private long length;

  /**
   * Takes the next request from the buffer.
   *
   * @param in big-endian, with at least {@link #BYTES} remaining; its position moves past them
   * @throws ProtocolException if it does not start with the magic number
   */
  public void readFrom(ByteBuffer in) throws ProtocolException {
    int start = in.position();
    int magic = in.getInt(start);
    if (magic != Magic.REQUEST) {
      throw new ProtocolException(
          "request does not start with the magic number but with 0x%08x".formatted(magic));
    }
    flags = Short.toUnsignedInt(in.getShort(start + 4));
    type = Short.toUnsignedInt(in.getShort(start + 6));
    cookie = in.getLong(start + 8);
    offset = in.getLong(start + 16);
    length = Integer.toUnsignedLong(in.getInt(start + 24));
    in.position(start + BYTES);
  }

  /** The command flags' bits, unsigned 16 bits. */
  public int flags() {
    return flags;
  }

  /** The command's number, unsigned 16 bits. */
  public int type() {
    return type;
  }

  /** What the reply has to repeat. */
  public long cookie() {
    return cookie;
  }

  /** In bytes; unsigned 64 bits. */
  public long offset() {
    return offset;
  }

  /** In bytes; from 0 to 2^32 - 1. */
  public long length() {
    return length;
  }

  /** Writes a request; the other side of {@link #readFrom}. */
  public static void write(
      ByteBuffer out, int flags, int type, long cookie, long offset, long length) {
    out.putInt(Magic.REQUEST)
        .putShort((short) flags)
        .putShort((short) type)
        .putLong(cookie)
        .putLong(offset)
        .putInt((int) length);
  }
}
