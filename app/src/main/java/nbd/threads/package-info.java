/** How threads are spent: which thread makes a call that may wait for storage. */
@NullMarked
package nbd.threads;

import org.jspecify.annotations.NullMarked;
