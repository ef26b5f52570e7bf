package nbd.transmission;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.function.Supplier;
import nbd.posix.Pipe;
import nbd.transmission.Admission.Reservation;

/**
 * The replies to requests that a handle has begun and ended. The handle's thread must not wait for
 * the client. So it sends at most what the client takes at once; the rest is sent by a virtual
 * thread, which runs as long as there are replies, and those that are added meanwhile leave
 * together.
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

  /** Used by the thread that sends. */
  private final List<Ended> batch = new ArrayList<>(BATCH);

  private record Ended(Reservation request, boolean isAlone, ByteBuffer reply) {}

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
   * @param isAlone whether no other reply is expected soon, so that waiting for some gains nothing
   * @param reply makes the reply, from its position to its limit; called at once
   */
  void add(Reservation request, boolean isAlone, Supplier<ByteBuffer> reply) {
    try {
      queue.add(new Ended(request, isAlone, reply.get()));
    } catch (RuntimeException | Error failure) {
      unsent.accept(failure);
      request.release();
      return;
    }
    if (count.getAndIncrement() == 0 && !sendWithoutWaiting()) {
      try {
        Thread.ofVirtual().start(this::send);
      } catch (RuntimeException | Error noThread) {
        unsent.accept(noThread);
        // Nothing can be sent any more, so this does not wait for the client.
        send();
      }
    }
  }

  /** Sends replies; false if another thread has to go on. */
  private boolean sendWithoutWaiting() {
    do {
      Ended next = Objects.requireNonNull(queue.peek());
      try {
        if (!next.isAlone() || !replies.sendSome(next.reply(), next.request().pipe())) {
          return false;
        }
      } catch (Exception | Error failure) {
        unsent.accept(failure);
      }
      queue.remove();
      next.request().release();
    } while (count.decrementAndGet() > 0);
    return true;
  }

  private void send() {
    int taken;
    do {
      try {
        Ended next = queue.poll();
        while (next != null) {
          batch.add(next);
          next = batch.size() < BATCH ? queue.poll() : null;
        }
        sendBatch();
      } catch (Exception | Error failure) {
        unsent.accept(failure);
      } finally {
        taken = batch.size();
        batch.forEach(each -> each.request().release());
        batch.clear();
      }
    } while (count.addAndGet(-taken) > 0);
  }

  /** Sends the replies of the batch; a reply that ends with what a pipe holds ends a call. */
  private void sendBatch() throws IOException {
    List<ByteBuffer> sent = new ArrayList<>(batch.size());
    for (Ended next : batch) {
      sent.add(next.reply());
      Optional<Pipe> data = next.request().pipe();
      if (data.isPresent()) {
        replies.send(sent.toArray(ByteBuffer[]::new), data.get());
        sent.clear();
      }
    }
    if (!sent.isEmpty()) {
      replies.send(sent.toArray(ByteBuffer[]::new));
    }
  }
}
