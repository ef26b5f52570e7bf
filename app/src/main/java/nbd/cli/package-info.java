/** The command line: options in, objects out; nothing of the protocol. */
@NullMarked
package nbd.cli;

import org.jspecify.annotations.NullMarked;
