/**
 * The promise of multi-conn: a flush on one connection covers the completed writes of all of its
 * group. {@link nbd.multiconn.MultiConnFilter} is the way in; {@code ConnectionTable} holds what it
 * knows, {@code Group} says how that is kept.
 */
@NullMarked
package nbd.multiconn;

import org.jspecify.annotations.NullMarked;
