/**
 * One cache for all connections of an export. {@link nbd.cache.CacheFilter} says how it is put
 * together.
 */
@NullMarked
package nbd.cache;

import org.jspecify.annotations.NullMarked;
