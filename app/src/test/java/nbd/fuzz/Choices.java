package nbd.fuzz;

import static java.nio.charset.StandardCharsets.ISO_8859_1;

import java.util.Arrays;

/**
 * Reads the fuzzer's bytes as decisions, from the first one on; when they are used up, everything
 * is zero. Unlike Jazzer's FuzzedDataProvider, which takes numbers from the end: this way a seed is
 * written by hand as the list of what is to happen, and what the fuzzer inserts or repeats in the
 * middle is an operation more.
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

  /** One of these. */
  int of(int... values) {
    return values[u8() % values.length];
  }

  /** So many bytes, or as many as are left. */
  byte[] bytes(int most) {
    byte[] taken = Arrays.copyOfRange(bytes, at, Math.min(bytes.length, at + most));
    at += taken.length;
    return taken;
  }

  /** All that is left. */
  byte[] rest() {
    return bytes(bytes.length - at);
  }

  /** Up to so many bytes, each one a character. */
  String text(int most) {
    return new String(bytes(most), ISO_8859_1);
  }
}
