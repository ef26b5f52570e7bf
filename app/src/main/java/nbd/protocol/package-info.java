/**
 * What is on the wire: the protocol's numbers as enums, its messages as records or views of a
 * buffer, and the reading and writing of them. No policy: nothing here decides what is answered.
 *
 * <p>Source: {@code doc/proto.md} of the NBD project. All integers are big-endian.
 */
@NullMarked
package nbd.protocol;

import org.jspecify.annotations.NullMarked;
