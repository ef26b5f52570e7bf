/**
 * The server's conformance to the protocol, over the wire: each option, reply, command and flag,
 * and the ways in which other servers broke ({@link nbd.conformance.WaysHandshakesBrokeTest},
 * {@link nbd.conformance.WaysRequestsBrokeTest}). Cases that reach the storage run on every storage
 * and through every filter ({@link nbd.conformance.Storage}). Cases that only one storage can show,
 * such as failures at a chosen place, are in {@code nbd.server}.
 */
package nbd.conformance;
