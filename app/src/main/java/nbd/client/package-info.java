/**
 * The NBD client of the upstream backend and of {@code info}: {@link nbd.client.NbdUri} names a
 * server and an export, {@link nbd.client.NbdClient} is a connection to an export.
 */
@NullMarked
package nbd.client;

import org.jspecify.annotations.NullMarked;
