package nbd.transmission;

import java.util.Collections;
import java.util.Locale;
import java.util.Set;
import java.util.stream.Collectors;
import nbd.protocol.ReplyFormat;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Capabilities;

/**
 * An export as it is offered to one client. {@link RequestCheck} refuses the commands and flags
 * that are not offered here.
 *
 * @param flags the transmission flags
 * @param format the layout of replies
 * @param allocation whether the client has selected base:allocation
 */
public record Advertised(Set<TransmissionFlag> flags, ReplyFormat format, boolean allocation) {
  /** Offers all that a handle can do, and all that client and server have agreed on. */
  public static Advertised of(Capabilities can, ReplyFormat format, boolean allocation) {
    Set<TransmissionFlag> flags = can.flags();
    if (format.hasChunks()) {
      flags.add(TransmissionFlag.SEND_DF);
    }
    if (allocation && format == ReplyFormat.EXTENDED) {
      flags.add(TransmissionFlag.BLOCK_STATUS_PAYLOAD);
    }
    return new Advertised(Collections.unmodifiableSet(flags), format, allocation);
  }

  /** Describes the offer for the log. */
  public String described() {
    String names =
        flags.stream()
            .map(flag -> flag.name().toLowerCase(Locale.ROOT).replace('_', '-'))
            .collect(Collectors.joining(", "));
    return "%s replies, %sflags: %s"
        .formatted(
            format.name().toLowerCase(Locale.ROOT), allocation ? "base:allocation, " : "", names);
  }
}
