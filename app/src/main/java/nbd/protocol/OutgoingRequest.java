package nbd.protocol;

import java.nio.ByteBuffer;

/** The header of a request as a client writes it: compact or extended. */
public final class OutgoingRequest {
  /** The bytes of the longer one. */
  public static final int MOST_BYTES = 32;

  private OutgoingRequest() {}

  /**
   * Appends a header to a big-endian buffer.
   *
   * @param out with at least {@link #MOST_BYTES} remaining
   * @param extended which of the two
   * @param length in bytes; below 2^32 if it is not extended
   */
  public static void write(
      ByteBuffer out,
      boolean extended,
      int flags,
      Command command,
      long cookie,
      long offset,
      long length) {
    if (extended) {
      int payload = command == Command.WRITE ? CommandFlag.PAYLOAD_LEN.bit() : 0;
      out.putInt(Magic.EXTENDED_REQUEST)
          .putShort((short) (flags | payload))
          .putShort((short) command.code())
          .putLong(cookie)
          .putLong(offset)
          .putLong(length);
    } else {
      RequestHeader.write(out, flags, command.code(), cookie, offset, length);
    }
  }
}
