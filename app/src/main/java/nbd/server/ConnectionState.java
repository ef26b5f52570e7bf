package nbd.server;

import java.time.Instant;
import java.util.Optional;

/**
 * A client's connection, as it is at one moment.
 *
 * @param number counts connections from 1, as the log does
 * @param peer the address, or on a Unix socket the process; empty if it is not known
 * @param export the name of the export that is served; empty during the handshake
 * @param since the time at which the connection was accepted
 * @param requests the number of requests so far
 * @param bytes that the client has asked to read and write so far
 */
public record ConnectionState(
    long number, String peer, Optional<String> export, Instant since, long requests, long bytes) {}
