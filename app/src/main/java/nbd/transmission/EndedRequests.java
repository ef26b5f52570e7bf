package nbd.transmission;

import static java.util.Objects.requireNonNull;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.function.Supplier;
import nbd.transmission.PendingRequests.Pending;
import org.jspecify.annotations.Nullable;

/**
 * The replies to requests that a handle has begun and ended. The handle's thread must not wait for
 * the client, so a virtual thread sends them, which runs as long as there are some; replies that
 * are added meanwhile leave together.
 *
 * <p>Invariant: {@code count} is the number of replies that are queued or being sent, and one
 * thread sends if and only if it is not 0. So that thread counts off the replies that it has taken,
 * whatever fails; and reservations are released whether replies were sent or not.
 */
final class EndedRequests {
  /** The largest number of replies that leave by one call. */
  private static final int BATCH = 64;

  private final Replies replies;
  private final Consumer<Throwable> unsent;
  private final Queue<Ended> queue = new ConcurrentLinkedQueue<>();
  private final AtomicInteger count = new AtomicInteger();

  /** Used by the thread that sends. */
  private final @Nullable Ended[] batch = new Ended[BATCH];

  private record Ended(Pending request, ByteBuffer reply) {}

  /**
   * Begins with none.
   *
   * @param unsent ends the connection, for the reason why a reply cannot be sent
   */
  EndedRequests(Replies replies, Consumer<Throwable> unsent) {
    this.replies = replies;
    this.unsent = unsent;
  }

  /**
   * Adds a request that has ended. Any thread may call; nothing is thrown.
   *
   * @param reply makes the reply, from its position to its limit; called at once
   */
  void add(Pending request, Supplier<ByteBuffer> reply) {
    try {
      queue.add(new Ended(request, reply.get()));
    } catch (RuntimeException | Error failure) {
      unsent.accept(failure);
      request.reservation().release();
      return;
    }
    if (count.getAndIncrement() == 0) {
      try {
        Thread.ofVirtual().start(this::send);
      } catch (RuntimeException | Error noThread) {
        unsent.accept(noThread);
        // Nothing can be sent any more, so this does not wait for the client.
        send();
      }
    }
  }

  private void send() {
    int taken;
    do {
      taken = 0;
      try {
        while (taken < BATCH && (batch[taken] = queue.poll()) != null) {
          taken++;
        }
        send(taken);
      } catch (Exception | Error failure) {
        unsent.accept(failure);
      } finally {
        release(taken);
      }
    } while (count.addAndGet(-taken) > 0);
  }

  private void send(int taken) throws IOException {
    ByteBuffer[] sent = new ByteBuffer[taken];
    for (int i = 0; i < taken; i++) {
      sent[i] = requireNonNull(batch[i]).reply();
    }
    replies.send(sent);
  }

  private void release(int taken) {
    for (int i = 0; i < taken; i++) {
      requireNonNull(batch[i]).request().reservation().release();
      batch[i] = null;
    }
  }
}
