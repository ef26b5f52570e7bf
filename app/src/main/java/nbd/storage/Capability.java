package nbd.storage;

import java.util.Optional;
import nbd.protocol.TransmissionFlag;

/** A handle's ability besides reading. An operation whose capability is missing is never asked. */
public enum Capability {
  /** Writes. */
  WRITE(Optional.empty()),

  /** Flushes. */
  FLUSH(TransmissionFlag.SEND_FLUSH),

  /**
   * The flag FUA on a write, trim or zero, which ends when its data is durable. Without it, the
   * command and then a flush have the same effect.
   */
  FUA(TransmissionFlag.SEND_FUA),

  /** Trims; only with {@link #WRITE}. */
  TRIM(TransmissionFlag.SEND_TRIM),

  /** Zeroes; only with {@link #WRITE}. */
  ZERO(TransmissionFlag.SEND_WRITE_ZEROES),

  /** The flag FAST_ZERO; only with {@link #ZERO}. */
  FAST_ZERO(TransmissionFlag.SEND_FAST_ZERO),

  /** Reads ahead. */
  CACHE(TransmissionFlag.SEND_CACHE),

  /** Knows more about extents than that there may be data everywhere. */
  EXTENTS(Optional.empty()),

  /**
   * A flush of one handle covers all handles of the same export name, and a read on any of them
   * then sees what was written on any other.
   */
  MULTI_CONN(TransmissionFlag.CAN_MULTI_CONN),

  /** Sequential access pays. */
  ROTATIONAL(TransmissionFlag.ROTATIONAL);

  private final Optional<TransmissionFlag> flag;

  Capability(TransmissionFlag flag) {
    this(Optional.of(flag));
  }

  Capability(Optional<TransmissionFlag> flag) {
    this.flag = flag;
  }

  /** Returns the flag by which a server tells clients of it, if there is one for it alone. */
  Optional<TransmissionFlag> flag() {
    return flag;
  }
}
