package nbd.protocol;

import java.nio.ByteBuffer;

/**
 * The header of a request in the transmission phase: magic, flags, type, cookie, offset, length; 28
 * bytes, or 32 with extended headers. A mutable view that a connection reads each of its requests
 * with, so that it allocates nothing.
 */
public final class RequestHeader {
  /** The length of a compact header. */
  public static final int BYTES = 28;

  /** The length of an extended header. */
  public static final int EXTENDED_BYTES = 32;

  private final boolean extended;
  private int flags;
  private int type;
  private long cookie;
  private long offset;
  private long length;

  public RequestHeader() {
    this(false);
  }

  /** Reads compact or extended headers, and refuses the other ones. */
  public RequestHeader(boolean extended) {
    this.extended = extended;
  }

  public int bytes() {
    return extended ? EXTENDED_BYTES : BYTES;
  }

  /**
   * Takes the next header from a buffer.
   *
   * @param in big-endian, with at least {@link #bytes} remaining
   * @throws ProtocolException if the header does not start with the magic number
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

  /** Returns the bits of the command flags, unsigned 16 bits. */
  public int flags() {
    return flags;
  }

  /** Returns the command's number, unsigned 16 bits. */
  public int type() {
    return type;
  }

  /** Returns the number by which the reply names the request. */
  public long cookie() {
    return cookie;
  }

  /** Returns the offset in bytes; unsigned 64 bits. */
  public long offset() {
    return offset;
  }

  /** Returns the length in bytes; unsigned, 32 bits, or 64 with extended headers. */
  public long length() {
    return length;
  }

  /** Returns the length of the payload that follows; unsigned 64 bits. */
  public long payloadLength() {
    boolean payload =
        extended ? (flags & CommandFlag.PAYLOAD_LEN.bit()) != 0 : type == Command.WRITE.code();
    return payload ? length : 0;
  }

  /**
   * Appends a header to a big-endian buffer.
   *
   * @param length in bytes; below 2^32 without extended headers
   */
  public static void write(
      ByteBuffer out,
      boolean extended,
      int flags,
      Command command,
      long cookie,
      long offset,
      long length) {
    int payload = extended && command == Command.WRITE ? CommandFlag.PAYLOAD_LEN.bit() : 0;
    out.putInt(extended ? Magic.EXTENDED_REQUEST : Magic.REQUEST)
        .putShort((short) (flags | payload))
        .putShort((short) command.code())
        .putLong(cookie)
        .putLong(offset);
    if (extended) {
      out.putLong(length);
    } else {
      out.putInt((int) length);
    }
  }
}
