package nbd.protocol;

import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * The header of a reply to an option, 20 bytes: magic, the option's number, the reply's type, and
 * how many bytes of data follow.
 *
 * @param option the option's number
 * @param type the reply's number
 * @param length of the data, in bytes, from 0 to 2^32 - 1
 */
public record OptionReplyHeader(int option, int type, long length) {
  /** The bytes of a reply before its data. */
  public static final int BYTES = 20;

  /**
   * Takes the next reply's header; waits for it.
   *
   * @throws ProtocolException if it does not start with the magic number
   */
  public static OptionReplyHeader read(WireInput in) throws IOException {
    in.require(BYTES);
    ByteBuffer buffer = in.buffer();
    long magic = buffer.getLong();
    if (magic != Magic.OPTION_REPLY) {
      throw new ProtocolException(
          "the reply to an option does not start with the magic number but with 0x%016x"
              .formatted(magic));
    }
    int option = buffer.getInt();
    int type = buffer.getInt();
    return new OptionReplyHeader(option, type, Integer.toUnsignedLong(buffer.getInt()));
  }
}
