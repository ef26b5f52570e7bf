/**
 * Another NBD server as the storage: a connection for each client ({@link
 * nbd.upstream.UpstreamBackend}), or one that all clients of an export share ({@link
 * nbd.upstream.SharingBackend}), or a session that outlives its connections ({@link
 * nbd.upstream.ReconnectingBackend}).
 */
@NullMarked
package nbd.upstream;

import org.jspecify.annotations.NullMarked;
