package nbd.protocol;

import java.util.EnumSet;
import java.util.Set;

/** The flags by which the server tells what an export can do ({@code NBD_FLAG_*}). */
public enum TransmissionFlag {
  /** Always set. */
  HAS_FLAGS(0),
  /** Writing commands are refused. */
  READ_ONLY(1),
  /** FLUSH is understood. */
  SEND_FLUSH(2),
  /** The FUA flag is understood. */
  SEND_FUA(3),
  /** Sequential access pays. */
  ROTATIONAL(4),
  /** TRIM is understood. */
  SEND_TRIM(5),
  /** WRITE_ZEROES is understood. */
  SEND_WRITE_ZEROES(6),
  /** The DF flag is understood. */
  SEND_DF(7),
  /** A flush on one connection covers all of them. */
  CAN_MULTI_CONN(8),
  /** RESIZE is understood (experimental). */
  SEND_RESIZE(9),
  /** CACHE is understood. */
  SEND_CACHE(10),
  /** The FAST_ZERO flag is understood. */
  SEND_FAST_ZERO(11),
  /** BLOCK_STATUS takes a payload. */
  BLOCK_STATUS_PAYLOAD(12);

  private final int bit;

  TransmissionFlag(int position) {
    this.bit = 1 << position;
  }

  public int bit() {
    return bit;
  }

  /** Reads the 16 bits that a server sent; unknown flags are ignored. */
  public static Set<TransmissionFlag> fromWire(short bits) {
    Set<TransmissionFlag> flags = EnumSet.noneOf(TransmissionFlag.class);
    for (TransmissionFlag flag : values()) {
      if ((bits & flag.bit) != 0) {
        flags.add(flag);
      }
    }
    return flags;
  }

  /** Encodes the 16 bits for the client. */
  public static short toWire(Set<TransmissionFlag> flags) {
    int bits = 0;
    for (TransmissionFlag flag : flags) {
      bits |= flag.bit;
    }
    return (short) bits;
  }
}
