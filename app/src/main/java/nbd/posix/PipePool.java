package nbd.posix;

import java.util.Optional;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.atomic.AtomicInteger;
import org.tinylog.Logger;

/**
 * A pool of pipes. Any thread may call.
 *
 * <p>Invariant: {@code open} is the number of pipes that are lent or idle, or being opened or
 * closed; at most {@link #MOST} are lent or idle. One that is never given back, after a failure in
 * the middle of its use, stays counted.
 */
public final class PipePool {
  /** As many as a user without privileges may have of this size (fs.pipe-user-pages-soft). */
  private static final int MOST = 48;

  private final ConcurrentLinkedDeque<Pipe> idle = new ConcurrentLinkedDeque<>();
  private final AtomicInteger open = new AtomicInteger();

  /** Lends an empty pipe; empty if there is none. */
  public Optional<Pipe> take() {
    Pipe used = idle.pollFirst();
    if (used != null) {
      return Optional.of(used);
    }
    Optional<Calls> calls = Calls.LINKED;
    if (calls.isEmpty()) {
      return Optional.empty();
    }
    if (open.incrementAndGet() <= MOST) {
      try {
        return Optional.of(Pipe.open(calls.get()));
      } catch (PosixException none) {
        Logger.debug("a large request is copied: {}", none.getMessage());
      }
    }
    open.decrementAndGet();
    return Optional.empty();
  }

  /** Takes back a pipe that was lent, which nobody uses any more. */
  public void giveBack(Pipe pipe) {
    if (pipe.held() == 0) {
      idle.addFirst(pipe);
    } else {
      pipe.close();
      open.decrementAndGet();
    }
  }
}
