package nbd.server;

import java.util.Collections;
import java.util.EnumSet;
import java.util.Set;
import nbd.backend.Capabilities;
import nbd.backend.Capability;
import nbd.backend.Fua;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.TransmissionFlag;

/**
 * The one place that decides what a client is told of an export, and with it which commands and
 * flags are answered with anything but EINVAL.
 *
 * @param flags the transmission flags
 */
record Advertised(Set<TransmissionFlag> flags) {
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);

  Advertised {
    flags = Collections.unmodifiableSet(EnumSet.copyOf(flags));
  }

  /** What follows from what a handle can do; what it may promise, the multi-conn filter decides. */
  static Advertised of(Capabilities can) {
    EnumSet<TransmissionFlag> flags = EnumSet.of(TransmissionFlag.HAS_FLAGS);
    boolean writable = can.has(Capability.WRITE);
    if (!writable) {
      flags.add(TransmissionFlag.READ_ONLY);
    }
    addIf(flags, can.has(Capability.FLUSH), TransmissionFlag.SEND_FLUSH);
    addIf(flags, can.fua() != Fua.NONE, TransmissionFlag.SEND_FUA);
    addIf(flags, can.has(Capability.ROTATIONAL), TransmissionFlag.ROTATIONAL);
    addIf(flags, writable && can.has(Capability.TRIM), TransmissionFlag.SEND_TRIM);
    boolean zero = writable && can.has(Capability.ZERO);
    addIf(flags, zero, TransmissionFlag.SEND_WRITE_ZEROES);
    addIf(flags, zero && can.has(Capability.FAST_ZERO), TransmissionFlag.SEND_FAST_ZERO);
    addIf(flags, can.has(Capability.CACHE), TransmissionFlag.SEND_CACHE);
    addIf(flags, can.has(Capability.MULTI_CONN), TransmissionFlag.CAN_MULTI_CONN);
    return new Advertised(flags);
  }

  private static void addIf(Set<TransmissionFlag> flags, boolean condition, TransmissionFlag flag) {
    if (condition) {
      flags.add(flag);
    }
  }

  boolean readOnly() {
    return flags.contains(TransmissionFlag.READ_ONLY);
  }

  /** Whether the client was told that the command is understood. */
  boolean understands(Command command) {
    return switch (command) {
      case READ, WRITE, DISC -> true;
      case FLUSH -> flags.contains(TransmissionFlag.SEND_FLUSH);
      case TRIM -> flags.contains(TransmissionFlag.SEND_TRIM);
      case CACHE -> flags.contains(TransmissionFlag.SEND_CACHE);
      case WRITE_ZEROES -> flags.contains(TransmissionFlag.SEND_WRITE_ZEROES);
      case BLOCK_STATUS, RESIZE -> false;
    };
  }

  /** The flags that the client may use with a command. */
  CommandFlags allowed(Command command) {
    CommandFlags allowed = flags.contains(TransmissionFlag.SEND_FUA) ? FUA : CommandFlags.NONE;
    if (command == Command.WRITE_ZEROES) {
      allowed = allowed.with(CommandFlag.NO_HOLE);
      if (flags.contains(TransmissionFlag.SEND_FAST_ZERO)) {
        allowed = allowed.with(CommandFlag.FAST_ZERO);
      }
    }
    return allowed;
  }
}
