package nbd.storage;

import java.io.IOException;
import org.jspecify.annotations.Nullable;

/** Told when a call that was begun is over; see {@link Handle#beginRead}. */
@FunctionalInterface
public interface Completion {
  /**
   * It is over, and the buffer is the caller's again. Called once, by any thread, perhaps before
   * the call that began it has returned; it never waits and never throws.
   *
   * @param failure as the ordinary call would have thrown it; null if it has succeeded
   */
  void done(@Nullable IOException failure);
}
