package nbd.posix;

import java.util.Optional;

/** The processor that the calling thread runs on. */
public final class Processor {
  private Processor() {}

  /**
   * Lets another thread of the machine run on this processor, if one is waiting for it: {@code
   * sched_yield(2)}. Does nothing where the system's calls are missing.
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
