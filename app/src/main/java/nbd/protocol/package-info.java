/**
 * The NBD protocol on the wire: its numbers as enums, and its messages, with the reading and
 * writing of them. Nothing here decides how a request is answered.
 *
 * <p>Source: {@code doc/proto.md} of the NBD project. All integers are big-endian.
 */
@NullMarked
package nbd.protocol;

import org.jspecify.annotations.NullMarked;
