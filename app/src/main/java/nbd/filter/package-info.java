/** Filters: backends around backends. They see handles, never connections or sockets. */
@NullMarked
package nbd.filter;

import org.jspecify.annotations.NullMarked;
