/** Storage without a medium: a RAM disk, and one that forgets what is written. */
@NullMarked
package nbd.memory;

import org.jspecify.annotations.NullMarked;
