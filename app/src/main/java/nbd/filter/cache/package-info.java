/**
 * One cache for all connections of an export. {@link nbd.filter.cache.CacheFilter} says how it is
 * put together.
 */
@NullMarked
package nbd.filter.cache;

import org.jspecify.annotations.NullMarked;
