/**
 * TLS for a connection: certificates from PEM files, and a channel that encrypts what is written to
 * it. It knows nothing of NBD, and needs the JDK only.
 *
 * <p>The channel is this package's own, over the JDK's {@code SSLEngine}, after the library for it
 * (tls-channel 0.9.1) was tried. There, who reads a TLS 1.3 KeyUpdate waits for whoever writes, so
 * that two peers that both read and write can wait for each other for ever; a peer whose handshake
 * fails is not told why; and each record of 16 KiB is a system call, which for large replies takes
 * 1.4 times the processor time.
 */
@NullMarked
package nbd.tls;

import org.jspecify.annotations.NullMarked;
