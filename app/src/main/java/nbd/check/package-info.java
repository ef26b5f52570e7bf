/** The multi-conn checker: judges what clients read. */
@NullMarked
package nbd.check;

import org.jspecify.annotations.NullMarked;
