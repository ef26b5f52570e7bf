package nbd.cache;

import java.io.IOException;
import nbd.protocol.NbdException;
import nbd.protocol.OptionException;
import org.jspecify.annotations.Nullable;

/**
 * The failure of an attempt that many may wait for, such as opening storage that does not answer:
 * whoever asked before the attempt failed gets its failure, instead of making, and waiting for, the
 * next attempt. Who asks later makes a new one.
 *
 * <p>What changes it, or throws, is called with the lock held under which the attempts are made;
 * {@link #count} by any thread.
 */
final class SharedFailure {
  private volatile long count;
  private @Nullable IOException last;

  /** How many attempts have failed: to be asked before waiting for the lock. */
  long count() {
    return count;
  }

  /** An attempt has failed. */
  @SuppressWarnings("NonAtomicVolatileUpdate") // the lock is held
  void add(IOException failure) {
    last = failure;
    count++;
  }

  /**
   * Throws the last failure if an attempt has failed since there were that many.
   *
   * @throws IOException of the caller's own
   */
  void throwSince(long before) throws IOException {
    IOException failure = last;
    if (failure != null && count != before) {
      throw ownOf(failure);
    }
  }

  /** A failure for one of those who share it. */
  static IOException ownOf(IOException failure) {
    return failure instanceof OptionException refused
        ? new OptionException(
            refused.type(),
            String.valueOf(failure.getMessage()),
            NbdException.told(failure),
            failure)
        : NbdException.copyOf(failure);
  }
}
