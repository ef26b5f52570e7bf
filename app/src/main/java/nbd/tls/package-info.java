/**
 * TLS for a connection: certificates from PEM files, and a channel that encrypts. It knows nothing
 * of NBD, and needs the JDK only.
 *
 * <p>The channel is this package's own, over the JDK's {@code SSLEngine}, after the library
 * tls-channel 0.9.1 was tried. There the thread that reads a TLS 1.3 KeyUpdate waits for the thread
 * that writes, so that two peers that both read and write can wait for each other for ever; no
 * alert says why a handshake failed; and each record of 16 KiB is a system call, which takes 1.4
 * times the processor time for large replies.
 */
@NullMarked
package nbd.tls;

import org.jspecify.annotations.NullMarked;
