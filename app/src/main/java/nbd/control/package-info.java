/**
 * The control socket, by which a server is looked after while it runs: a client connects, is
 * greeted with a line that names the version, sends one line, and gets an answer of lines until the
 * end of the stream.
 */
@NullMarked
package nbd.control;

import org.jspecify.annotations.NullMarked;
