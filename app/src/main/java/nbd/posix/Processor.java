package nbd.posix;

import java.util.Optional;

/** The processor that the calling thread runs on; see {@code sched_yield(2)}. */
public final class Processor {
  private Processor() {}

  /**
   * Lets other threads of the machine run first, if any wait for this processor. A virtual thread
   * keeps its carrier meanwhile. Does nothing where the system's calls are missing.
   */
  public static void giveUp() {
    Optional<Calls> calls = Calls.LINKED;
    if (calls.isEmpty()) {
      return;
    }
    try {
      int result = (int) calls.get().schedYield.invokeExact();
      assert result == 0 : "it has no errors";
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }
}
