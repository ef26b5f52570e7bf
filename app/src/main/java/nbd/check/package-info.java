/** The multi-conn checker: says of what clients saw whether the promise was kept. */
@NullMarked
package nbd.check;

import org.jspecify.annotations.NullMarked;
