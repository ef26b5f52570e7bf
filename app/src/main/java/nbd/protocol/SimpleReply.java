package nbd.protocol;

import java.nio.ByteBuffer;

/** The reply to a request, 16 bytes: magic, error, cookie; the data of a READ follows. */
public final class SimpleReply {
  /** The bytes of a reply before its data. */
  public static final int BYTES = 16;

  private SimpleReply() {}

  /** Appends a reply to a big-endian buffer with at least {@link #BYTES} remaining. */
  public static void write(ByteBuffer out, NbdError error, long cookie) {
    out.putInt(Magic.SIMPLE_REPLY).putInt(error.code()).putLong(cookie);
  }
}
