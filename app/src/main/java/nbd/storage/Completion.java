package nbd.storage;

import java.io.IOException;
import org.jspecify.annotations.Nullable;

/** Told when an operation that was begun has ended; see {@link Handle#perform}. */
@FunctionalInterface
public interface Completion {
  /** For operations that are not begun. */
  Completion NONE =
      failure -> {
        throw new IllegalStateException("an operation ended that was not begun", failure);
      };

  /**
   * Takes the end of the operation, whose buffer is the caller's again. Called once, by any thread,
   * perhaps before the call that began it has returned; it never waits and never throws.
   *
   * @param failure as {@link Handle#perform} would have thrown it; null if it has succeeded
   */
  void done(@Nullable IOException failure);
}
