package nbd.server;

import nbd.backend.Handle;

/**
 * An export that one connection has opened.
 *
 * @param name as the client asked for it
 * @param description a text for people; may be empty
 * @param handle the connection's own
 * @param advertised what the client is told of it
 */
record OpenExport(String name, String description, Handle handle, Advertised advertised) {}
