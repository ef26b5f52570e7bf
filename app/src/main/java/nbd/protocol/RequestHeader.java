package nbd.protocol;

import java.nio.ByteBuffer;

/**
 * A request of the transmission phase in a big-endian buffer: magic, flags, type, cookie, offset,
 * length; 28 bytes, or 32 with extended headers. A mutable view that one connection reads each of
 * its requests with, so that none is allocated for it.
 */
public final class RequestHeader {
  /** The bytes of a compact request before its payload. */
  public static final int BYTES = 28;

  /** The bytes of an extended request before its payload. */
  public static final int EXTENDED_BYTES = 32;

  private final boolean extended;
  private int flags;
  private int type;
  private long cookie;
  private long offset;
  private long length;

  /** Reads compact requests. */
  public RequestHeader() {
    this(false);
  }

  /** Reads requests of the one layout or the other; the other one's are garbage. */
  public RequestHeader(boolean extended) {
    this.extended = extended;
  }

  /** The bytes of a request before its payload. */
  public int bytes() {
    return extended ? EXTENDED_BYTES : BYTES;
  }

  /**
   * Takes the next request from the buffer.
   *
   * @param in big-endian, with at least {@link #bytes} remaining; its position moves past them
   * @throws ProtocolException if it does not start with the magic number
   */
  public void readFrom(ByteBuffer in) throws ProtocolException {
    int start = in.position();
    int magic = in.getInt(start);
    if (magic != (extended ? Magic.EXTENDED_REQUEST : Magic.REQUEST)) {
      throw new ProtocolException(
          "request does not start with the magic number but with 0x%08x".formatted(magic));
    }
    flags = Short.toUnsignedInt(in.getShort(start + 4));
    type = Short.toUnsignedInt(in.getShort(start + 6));
    cookie = in.getLong(start + 8);
    offset = in.getLong(start + 16);
    length = extended ? in.getLong(start + 24) : Integer.toUnsignedLong(in.getInt(start + 24));
    in.position(start + bytes());
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

  /** In bytes; unsigned 64 bits, and less than 2^32 without extended headers. */
  public long length() {
    return length;
  }

  /** The bytes that follow the request; unsigned 64 bits. */
  public long payloadLength() {
    boolean payload =
        extended ? (flags & CommandFlag.PAYLOAD_LEN.bit()) != 0 : type == Command.WRITE.code();
    return payload ? length : 0;
  }

  /** Writes a compact request; the other side of {@link #readFrom}. */
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
