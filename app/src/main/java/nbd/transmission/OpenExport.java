package nbd.transmission;

import nbd.protocol.ReplyFormat;
import nbd.storage.Handle;

/**
 * An export that one connection has opened.
 *
 * @param name the one that the client asked for
 * @param description a text for people; may be empty
 * @param handle the connection's own
 * @param advertised the offer to the client
 */
public record OpenExport(String name, String description, Handle handle, Advertised advertised) {
  /** Returns the same export for a client that has agreed on this. */
  public OpenExport agreed(ReplyFormat format, boolean allocation) {
    return new OpenExport(
        name, description, handle, Advertised.of(handle.capabilities(), format, allocation));
  }
}
