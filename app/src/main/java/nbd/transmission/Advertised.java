package nbd.transmission;

import java.util.Collections;
import java.util.EnumSet;
import java.util.Locale;
import java.util.Set;
import java.util.stream.Collectors;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.ReplyFormat;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Fua;

/**
 * The one place that decides what a client is told of an export, and with it which commands and
 * flags are answered with anything but EINVAL.
 *
 * @param flags the transmission flags
 * @param format how replies look
 * @param allocation whether the client has selected base:allocation
 */
public record Advertised(Set<TransmissionFlag> flags, ReplyFormat format, boolean allocation) {
  public Advertised {
    flags = Collections.unmodifiableSet(EnumSet.copyOf(flags));
  }

  /**
   * What follows from what a handle can do, and from what client and server have agreed on; what
   * the handle may promise, the multi-conn filter decides.
   *
   * @param allocation whether the client has selected base:allocation for this export
   */
  public static Advertised of(Capabilities can, ReplyFormat format, boolean allocation) {
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
    addIf(flags, format.hasChunks(), TransmissionFlag.SEND_DF);
    boolean filter = allocation && format == ReplyFormat.EXTENDED;
    addIf(flags, filter, TransmissionFlag.BLOCK_STATUS_PAYLOAD);
    return new Advertised(flags, format, allocation);
  }

  private static void addIf(Set<TransmissionFlag> flags, boolean condition, TransmissionFlag flag) {
    if (condition) {
      flags.add(flag);
    }
  }

  /** For the log: the flags, and what else was agreed on. */
  public String described() {
    String told =
        flags.stream()
            .map(flag -> flag.name().toLowerCase(Locale.ROOT).replace('_', '-'))
            .collect(Collectors.joining(", "));
    return "%s replies, %sflags: %s"
        .formatted(
            format.name().toLowerCase(Locale.ROOT), allocation ? "base:allocation, " : "", told);
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
      case BLOCK_STATUS -> allocation;
      case RESIZE -> false;
    };
  }

  /** The flags that the client may use with a command. */
  CommandFlags allowed(Command command) {
    CommandFlags allowed = required(command);
    allowed = allowedIf(TransmissionFlag.SEND_FUA, allowed, CommandFlag.FUA);
    return switch (command) {
      case READ -> allowedIf(TransmissionFlag.SEND_DF, allowed, CommandFlag.DF);
      case WRITE_ZEROES ->
          allowedIf(
              TransmissionFlag.SEND_FAST_ZERO,
              allowed.with(CommandFlag.NO_HOLE),
              CommandFlag.FAST_ZERO);
      case BLOCK_STATUS ->
          allowedIf(
              TransmissionFlag.BLOCK_STATUS_PAYLOAD,
              allowed.with(CommandFlag.REQ_ONE),
              CommandFlag.PAYLOAD_LEN);
      default -> allowed;
    };
  }

  private CommandFlags allowedIf(TransmissionFlag told, CommandFlags others, CommandFlag flag) {
    return flags.contains(told) ? others.with(flag) : others;
  }

  /** The flags that the client has to use with a command. */
  CommandFlags required(Command command) {
    return command == Command.WRITE && format == ReplyFormat.EXTENDED
        ? CommandFlags.of(CommandFlag.PAYLOAD_LEN)
        : CommandFlags.NONE;
  }
}
