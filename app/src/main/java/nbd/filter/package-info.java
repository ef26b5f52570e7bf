/** A backend around a backend. Each sees handles only, nothing of connections and sockets. */
@NullMarked
package nbd.filter;

import org.jspecify.annotations.NullMarked;
