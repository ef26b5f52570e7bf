package nbd.storage;

import java.io.IOException;
import org.jspecify.annotations.Nullable;

/** A callback for the end of an operation that was begun; see {@link Handle#perform}. */
@FunctionalInterface
public interface Completion {
  /** For operations that are not begun. */
  Completion NONE =
      failure -> {
        throw new IllegalStateException("an operation ended that was not begun", failure);
      };

  /**
   * Reports the end of the operation, whose buffer is the caller's again. Called once, by any
   * thread, perhaps before the call that began the operation has returned; it never waits and never
   * throws.
   *
   * @param failure as {@link Handle#perform} would have thrown it; null if the operation succeeded
   */
  void done(@Nullable IOException failure);
}
