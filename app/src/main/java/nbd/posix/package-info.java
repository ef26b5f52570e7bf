/** Calls of the system that the JDK lacks, through java.lang.foreign. */
@NullMarked
package nbd.posix;

import org.jspecify.annotations.NullMarked;
