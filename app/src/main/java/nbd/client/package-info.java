/**
 * The NBD client that the upstream backend, {@code info} and the checks share: {@link
 * nbd.client.NbdUri} says where a server is, {@link nbd.client.NbdClient} is one connection to an
 * export of it.
 */
@NullMarked
package nbd.client;

import org.jspecify.annotations.NullMarked;
