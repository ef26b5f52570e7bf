package nbd.transmission;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.function.Supplier;
import nbd.posix.Pipe;
import nbd.threads.Postponed;
import nbd.transmission.Admission.Reservation;

/**
 * The replies to requests that a handle has begun and ended. The handle's thread must not wait for
 * the client. So it sends at most what the client takes at once, and by one call the replies to
 * requests that end together ({@link Postponed}); the rest, and everything if nothing is spliced to
 * this client, is sent by a virtual thread, which runs as long as there are replies.
 *
 * <p>Invariant: {@code count} is the number of replies that are queued or being sent, and one
 * thread sends if and only if it is not 0. So that thread counts off the replies that it has sent,
 * whatever fails, or starts another one in its place; and reservations are released whether replies
 * were sent or not.
 */
final class EndedRequests {
  /** The largest number of replies that leave by one call. */
  private static final int BATCH = 64;

  private final Replies replies;
  private final Consumer<Throwable> unsent;
  private final Queue<Ended> queue = new ConcurrentLinkedQueue<>();
  private final AtomicInteger count = new AtomicInteger();

  /** Made while there is memory. */
  private final Runnable sending = this::sendWithoutWaiting;

  /** Used by the thread that sends. */
  private final List<Ended> batch = new ArrayList<>(BATCH);

  private record Ended(Reservation request, ByteBuffer reply) {}

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
   * @param request released when the reply has been sent
   * @param reply makes the reply, from its position to its limit; called at once
   */
  void add(Reservation request, Supplier<ByteBuffer> reply) {
    try {
      queue.add(new Ended(request, reply.get()));
    } catch (RuntimeException | Error failure) {
      unsent.accept(failure);
      request.release();
      return;
    }
    if (count.getAndIncrement() == 0) {
      Postponed.add(sending);
    }
  }

  private void sendWithoutWaiting() {
    if (!send(false)) {
      try {
        Thread.ofVirtual().start(() -> send(true));
      } catch (RuntimeException | Error noThread) {
        unsent.accept(noThread);
        // Nothing can be sent any more, so this does not wait for the client.
        send(true);
      }
    }
  }

  /** Sends replies; false if a thread that may wait has to go on, with the batch. */
  private boolean send(boolean mayWait) {
    int taken;
    do {
      try {
        fillBatch();
        if (!sendBatch(mayWait)) {
          return false;
        }
      } catch (Exception | Error failure) {
        unsent.accept(failure);
      }
      taken = batch.size();
      batch.forEach(each -> each.request().release());
      batch.clear();
    } while (count.addAndGet(-taken) > 0);
    return true;
  }

  private void fillBatch() {
    while (batch.size() < BATCH) {
      Ended next = queue.poll();
      if (next == null) {
        return;
      }
      batch.add(next);
    }
  }

  /** Sends the replies of the batch; a reply that ends with what a pipe holds ends a call. */
  private boolean sendBatch(boolean mayWait) throws IOException {
    List<ByteBuffer> sent = new ArrayList<>(batch.size());
    for (Ended next : batch) {
      sent.add(next.reply());
      Optional<Pipe> data = next.request().pipe();
      if (data.isPresent()) {
        if (!send(sent, data, mayWait)) {
          return false;
        }
        sent.clear();
      }
    }
    return sent.isEmpty() || send(sent, Optional.empty(), mayWait);
  }

  private boolean send(List<ByteBuffer> sent, Optional<Pipe> data, boolean mayWait)
      throws IOException {
    ByteBuffer[] buffers = sent.toArray(ByteBuffer[]::new);
    if (!mayWait) {
      return replies.sendSome(buffers, data);
    }
    replies.send(buffers, data);
    return true;
  }
}
