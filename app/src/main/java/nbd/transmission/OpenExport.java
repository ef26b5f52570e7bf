package nbd.transmission;

import java.util.Locale;
import java.util.Set;
import java.util.stream.Collectors;
import nbd.protocol.ReplyFormat;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Handle;

/**
 * An export that one connection has opened, and the agreements of server and client about it.
 *
 * @param name the one that the client asked for
 * @param description a text for people; may be empty
 * @param handle the connection's own
 * @param format the form of replies
 * @param allocation whether the client has selected base:allocation
 */
public record OpenExport(
    String name, String description, Handle handle, ReplyFormat format, boolean allocation) {
  /** Returns the same export with other agreements. */
  public OpenExport agreed(ReplyFormat newFormat, boolean selected) {
    return new OpenExport(name, description, handle, newFormat, selected);
  }

  /** Returns the transmission flags that offer all that the handle can do, and the agreements. */
  public Set<TransmissionFlag> flags() {
    Set<TransmissionFlag> flags = handle.capabilities().flags();
    if (format.hasChunks()) {
      flags.add(TransmissionFlag.SEND_DF);
    }
    if (allocation && format == ReplyFormat.EXTENDED) {
      flags.add(TransmissionFlag.BLOCK_STATUS_PAYLOAD);
    }
    return flags;
  }

  /** Describes the agreements and flags for the log. */
  public String offer() {
    String names =
        flags().stream()
            .map(flag -> flag.name().toLowerCase(Locale.ROOT).replace('_', '-'))
            .collect(Collectors.joining(", "));
    return "%s replies, %sflags: %s"
        .formatted(
            format.name().toLowerCase(Locale.ROOT), allocation ? "base:allocation, " : "", names);
  }
}
