package nbd.tls;

import java.io.ByteArrayOutputStream;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;

/** The part of DER (ITU-T X.690) that it takes to put a private key into another structure. */
final class Der {
  static final int INTEGER = 0x02;
  static final int OCTET_STRING = 0x04;
  static final int NULL = 0x05;
  static final int OBJECT_IDENTIFIER = 0x06;
  static final int SEQUENCE = 0x30;

  private static final int LONG_LENGTH = 0x80;

  private Der() {}

  /** A value with its tag. */
  record Value(int tag, ByteBuffer content) {}

  /** Encodes a value that consists of these parts. */
  static byte[] value(int tag, byte[]... parts) {
    ByteArrayOutputStream content = new ByteArrayOutputStream();
    for (byte[] part : parts) {
      content.writeBytes(part);
    }
    int length = content.size();
    ByteArrayOutputStream value = new ByteArrayOutputStream();
    value.write(tag);
    if (length < LONG_LENGTH) {
      value.write(length);
    } else {
      int bytes = (39 - Integer.numberOfLeadingZeros(length)) / 8;
      value.write(LONG_LENGTH | bytes);
      for (int i = bytes - 1; i >= 0; i--) {
        value.write(length >> (8 * i));
      }
    }
    value.writeBytes(content.toByteArray());
    return value.toByteArray();
  }

  /**
   * Decodes the next value.
   *
   * @throws IllegalArgumentException if it is not there or not whole
   */
  static Value next(ByteBuffer from) {
    try {
      int tag = Byte.toUnsignedInt(from.get());
      int length = Byte.toUnsignedInt(from.get());
      if (length >= LONG_LENGTH) {
        int bytes = length - LONG_LENGTH;
        if (bytes == 0 || bytes > 3) {
          throw new IllegalArgumentException("a length of " + bytes + " bytes");
        }
        length = 0;
        for (int i = 0; i < bytes; i++) {
          length = length << 8 | Byte.toUnsignedInt(from.get());
        }
      }
      ByteBuffer content = from.slice(from.position(), length);
      from.position(from.position() + length);
      return new Value(tag, content);
    } catch (BufferUnderflowException | IndexOutOfBoundsException early) {
      throw new IllegalArgumentException("it ends too early", early);
    }
  }
}
