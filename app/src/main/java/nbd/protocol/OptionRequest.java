package nbd.protocol;

import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * The header of an option, 16 bytes: magic, the option's number, and the length of the data.
 *
 * @param length in bytes, from 0 to 2^32 - 1
 */
public record OptionRequest(int code, long length) {
  /** The bytes of an option before its data. */
  public static final int BYTES = 16;

  /**
   * Waits for the next option's header.
   *
   * @throws ProtocolException if it does not start with the magic number
   */
  public static OptionRequest read(WireInput in) throws IOException {
    in.require(BYTES);
    ByteBuffer buffer = in.buffer();
    long magic = buffer.getLong();
    if (magic != Magic.OPTION) {
      throw new ProtocolException(
          "option does not start with the magic number but with 0x%016x".formatted(magic));
    }
    int code = buffer.getInt();
    return new OptionRequest(code, Integer.toUnsignedLong(buffer.getInt()));
  }
}
