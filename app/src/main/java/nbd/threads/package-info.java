/**
 * The rules by which threads and processors are spent: which thread makes a call that may wait, how
 * long a connection keeps its carrier, when it polls. Each says what was measured.
 */
@NullMarked
package nbd.threads;

import org.jspecify.annotations.NullMarked;
