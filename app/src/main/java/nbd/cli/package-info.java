/** The command line: options, help and messages, and the life of a server process. */
@NullMarked
package nbd.cli;

import org.jspecify.annotations.NullMarked;
