package nbd.fuzz;

import static java.nio.charset.StandardCharsets.ISO_8859_1;

import java.util.Arrays;

/**
 * The decisions of a fuzz test, read from the fuzzer's bytes; zero when the bytes are used up.
 *
 * <p>Jazzer's FuzzedDataProvider takes numbers from the end. Taking them from the start lets a seed
 * be written by hand as a list of events, to which the fuzzer can add one in the middle.
 */
final class Choices {
  private final byte[] bytes;
  private int at;

  Choices(byte... bytes) {
    this.bytes = bytes.clone();
  }

  boolean hasMore() {
    return at < bytes.length;
  }

  int u8() {
    return at < bytes.length ? Byte.toUnsignedInt(bytes[at++]) : 0;
  }

  int u16() {
    return u8() << 8 | u8();
  }

  long u32() {
    return (long) u16() << 16 | u16();
  }

  long u64() {
    return u32() << 32 | u32();
  }

  /** Takes one of these values. */
  int of(int... values) {
    return values[u8() % values.length];
  }

  /** Takes so many bytes, or as many as are left. */
  byte[] bytes(int most) {
    byte[] taken = Arrays.copyOfRange(bytes, at, Math.min(bytes.length, at + most));
    at += taken.length;
    return taken;
  }

  /** Takes the bytes that are left. */
  byte[] rest() {
    return bytes(bytes.length - at);
  }

  /** Takes up to so many bytes as characters. */
  String text(int most) {
    return new String(bytes(most), ISO_8859_1);
  }
}
