package nbd.testing;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.ByteArrayOutputStream;
import java.util.Random;

/** A builder of big-endian messages, number by number, without the server's own code. */
public final class Bytes {
  private final ByteArrayOutputStream out = new ByteArrayOutputStream();

  private Bytes() {}

  /** Returns a message without bytes. */
  public static Bytes of() {
    return new Bytes();
  }

  /** Appends 16 bits. */
  public Bytes u16(long value) {
    return number(value, 2);
  }

  /** Appends 32 bits. */
  public Bytes u32(long value) {
    return number(value, 4);
  }

  /** Appends 64 bits. */
  public Bytes u64(long value) {
    return number(value, 8);
  }

  private Bytes number(long value, int bytes) {
    for (int i = bytes - 1; i >= 0; i--) {
      out.write((int) (value >> (8 * i)));
    }
    return this;
  }

  /** Appends bytes. */
  public Bytes raw(byte... bytes) {
    out.writeBytes(bytes);
    return this;
  }

  /** Appends UTF-8. */
  public Bytes text(String text) {
    return raw(text.getBytes(UTF_8));
  }

  public byte[] toArray() {
    return out.toByteArray();
  }

  /** Returns so many random bytes. */
  public static byte[] random(long seed, int count) {
    byte[] bytes = new byte[count];
    new Random(seed).nextBytes(bytes);
    return bytes;
  }
}
