/**
 * The requests of one connection: checked, done at once or handed to a thread that may wait,
 * answered in batches, and admitted by the memory that they need. {@link
 * nbd.transmission.Transmission} is the way in.
 */
@NullMarked
package nbd.transmission;

import org.jspecify.annotations.NullMarked;
