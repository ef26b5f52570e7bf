package nbd.protocol;

import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * An option's header: 16 bytes, the option's number and how many bytes of data follow.
 *
 * @param code the option's number
 * @param length of the data, in bytes, from 0 to 2^32 - 1
 */
public record OptionRequest(int code, long length) {
  /** The bytes of an option before its data. */
  public static final int BYTES = 16;

  /**
   * Takes the next option's header; waits for it.
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
