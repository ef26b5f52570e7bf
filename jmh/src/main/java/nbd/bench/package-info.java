/** Benchmarks of the cost of the multi-conn promise, and the report of their results. */
@NullMarked
package nbd.bench;

import org.jspecify.annotations.NullMarked;
