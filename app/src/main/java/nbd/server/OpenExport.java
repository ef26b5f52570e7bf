package nbd.server;

import nbd.backend.Handle;
import nbd.protocol.ReplyFormat;

/**
 * An export that one connection has opened.
 *
 * @param name as the client asked for it
 * @param description a text for people; may be empty
 * @param handle the connection's own
 * @param advertised what the client is told of it
 */
record OpenExport(String name, String description, Handle handle, Advertised advertised) {
  /** The same export for a client with which this was agreed on. */
  OpenExport agreed(ReplyFormat format, boolean allocation) {
    return new OpenExport(
        name, description, handle, Advertised.of(handle.capabilities(), format, allocation));
  }
}
