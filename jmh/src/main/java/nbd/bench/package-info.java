/** Benchmarks: what the promise of multi-conn costs, and how they are shown. */
@NullMarked
package nbd.bench;

import org.jspecify.annotations.NullMarked;
