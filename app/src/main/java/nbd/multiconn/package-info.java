/**
 * The promise of multi-conn: a flush on one connection covers the completed writes of all
 * connections of its group. {@link nbd.multiconn.MultiConnFilter} is the entry; {@code Group} says
 * how the promise is kept.
 */
@NullMarked
package nbd.multiconn;

import org.jspecify.annotations.NullMarked;
