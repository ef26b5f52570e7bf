package nbd.server;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import nbd.server.SlowRequests.Slow;

/**
 * The replies of requests that a handle began and has ended. Whoever tells the end must not wait
 * for the client, so a virtual thread sends them, which is there as long as there are some; those
 * that come meanwhile leave together.
 *
 * <p>Invariant: {@code count} is how many are in the queue or in the hands of the one thread that
 * sends, which is there if and only if it is not 0.
 */
final class EndedRequests {
  /** So many leave by one call. */
  private static final int BATCH = 64;

  private final Replies replies;
  private final Consumer<Slow> leave;
  private final Consumer<IOException> unsent;
  private final Queue<Ended> queue = new ConcurrentLinkedQueue<>();
  private final AtomicInteger count = new AtomicInteger();

  private record Ended(Slow request, ByteBuffer reply) {}

  /**
   * Begins with none.
   *
   * @param leave told of each request when its reply has been sent, or cannot be
   * @param unsent told why replies cannot be sent
   */
  EndedRequests(Replies replies, Consumer<Slow> leave, Consumer<IOException> unsent) {
    this.replies = replies;
    this.leave = leave;
    this.unsent = unsent;
  }

  /** Adds a reply, from its position to its limit; any thread may. */
  void add(Slow request, ByteBuffer reply) {
    queue.add(new Ended(request, reply));
    if (count.getAndIncrement() == 0) {
      Thread.ofVirtual().start(this::send);
    }
  }

  private void send() {
    List<Ended> batch = new ArrayList<>(BATCH);
    do {
      batch.clear();
      while (batch.size() < BATCH) {
        Ended next = queue.poll();
        if (next == null) {
          break;
        }
        batch.add(next);
      }
      send(batch);
    } while (count.addAndGet(-batch.size()) > 0);
  }

  private void send(List<Ended> batch) {
    try {
      replies.send(batch.stream().map(Ended::reply).toArray(ByteBuffer[]::new));
    } catch (IOException failure) {
      unsent.accept(failure);
    } finally {
      batch.forEach(ended -> leave.accept(ended.request()));
    }
  }
}
