/**
 * The contract between the server and storage ({@link nbd.backend.Backend}, {@link
 * nbd.backend.Handle}), and the storage behind it.
 */
@NullMarked
package nbd.backend;

import org.jspecify.annotations.NullMarked;
