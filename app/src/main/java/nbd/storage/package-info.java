/**
 * The contract between the server and storage: {@link nbd.storage.Backend} and {@link
 * nbd.storage.Handle}.
 */
@NullMarked
package nbd.storage;

import org.jspecify.annotations.NullMarked;
