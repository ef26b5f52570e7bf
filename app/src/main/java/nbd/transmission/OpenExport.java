package nbd.transmission;

import nbd.protocol.ReplyFormat;
import nbd.storage.Handle;

/**
 * An export that one connection has opened.
 *
 * @param name as the client asked for it
 * @param description a text for people; may be empty
 * @param handle the connection's own
 * @param advertised what the client is told of it
 */
public record OpenExport(String name, String description, Handle handle, Advertised advertised) {
  /** The same export for a client with which this was agreed on. */
  public OpenExport agreed(ReplyFormat format, boolean allocation) {
    return new OpenExport(
        name, description, handle, Advertised.of(handle.capabilities(), format, allocation));
  }
}
