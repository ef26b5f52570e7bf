package nbd.client;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicReference;
import nbd.posix.Pipe;
import nbd.protocol.Command;
import nbd.protocol.RequestHeader;
import org.jspecify.annotations.Nullable;

/**
 * The queue of requests to send. The first thread that queues a request while nobody sends becomes
 * the leader, and sends what is queued by one system call, payloads without a copy. Threads that
 * come meanwhile leave their requests in the queue. So concurrent requests cost few system calls,
 * and no thread waits for a lock.
 *
 * <p>Invariants: {@code last} is null if and only if there is no leader, and then nothing is
 * queued. Only the leader takes from the queue, writes to the wire and uses the buffers here. A
 * leader whose own request is done hands over to the caller of a queued request, which still waits
 * for it, if there is one: so no thread sends for others for long.
 */
final class SendQueue {
  /** Limit on the requests in one system call. */
  private static final int BATCH = 64;

  /** Sentinel: the end of the queue while there is a leader. */
  private static final Request LEADING = Request.sentinel();

  /** Sentinel: the leader waits for no request of its own. */
  private static final Request NO_CALLER = Request.sentinel();

  private final Wire wire;
  private final Link link;
  private final boolean extended;

  /** The newest request in the queue, linked to the ones before it; null without a leader. */
  private final AtomicReference<@Nullable Request> last = new AtomicReference<>();

  /** The requests that a leader has handed over, oldest first; belongs to the leader. */
  private @Nullable Request handedOver;

  private final ByteBuffer headers =
      ByteBuffer.allocateDirect(BATCH * RequestHeader.EXTENDED_BYTES);
  private final ByteBuffer[] pieces = new ByteBuffer[2 * BATCH + 1];

  SendQueue(Wire wire, Link link, boolean extended) {
    this.wire = wire;
    this.link = link;
    this.extended = extended;
  }

  /** Queues a request of this thread, leads if nobody does, and waits until it is done. */
  void sendAndAwait(Request request) {
    if (queue(request, request)) {
      lead(request);
    }
    while (!request.await()) {
      lead(request);
    }
  }

  /**
   * Queues requests that no thread waits for, and leads if nobody does.
   *
   * @param newest linked to the one before it, and so on
   * @param oldest the end of these links
   */
  void sendAll(Request newest, Request oldest) {
    if (queue(newest, oldest)) {
      lead(NO_CALLER);
    }
  }

  /** Queues linked requests; true if there is no leader yet. */
  private boolean queue(Request newest, Request oldest) {
    Request before = last.get();
    while (true) {
      oldest.next = before;
      Request seen = last.compareAndExchange(before, newest);
      if (seen == before) {
        return before == null;
      }
      before = seen;
    }
  }

  /** Sends until the queue is empty or another thread leads. */
  private void lead(Request own) {
    Request batch = handedOver;
    handedOver = null;
    while (true) {
      if (batch == null) {
        batch = takeAll();
      }
      if (batch == null) {
        if (last.compareAndSet(LEADING, null)) {
          return;
        }
      } else if (own.isDone() && handOver(batch)) {
        return;
      } else {
        batch = write(batch);
      }
    }
  }

  /** Makes a thread that waits for one of these requests the leader; false if none does. */
  private boolean handOver(Request batch) {
    Request successor = batch;
    while (successor != null && !successor.canLead()) {
      successor = successor.next;
    }
    if (successor == null) {
      return false;
    }
    handedOver = batch;
    successor.lead();
    return true;
  }

  /** Takes the queue, oldest first. */
  private @Nullable Request takeAll() {
    Request taken = last.getAndSet(LEADING);
    Request first = null;
    while (taken != null && taken != LEADING) {
      Request before = taken.next;
      taken.next = first;
      first = taken;
      taken = before;
    }
    return first;
  }

  /** Writes up to a batch of requests, and returns the rest. */
  private @Nullable Request write(Request first) {
    Request rest = first;
    int pieceCount = 0;
    Pipe piped = null;
    try {
      headers.clear();
      int begun = 0;
      for (int i = 0; i < BATCH && rest != null; i++) {
        RequestHeader.write(
            headers, extended, rest.flags, rest.command, rest.cookie, rest.offset, rest.length);
        ByteBuffer payload = rest.payload();
        Pipe pipe = rest.pipe();
        if (pipe != null && rest.command == Command.WRITE) {
          piped = pipe;
          rest = rest.next;
          break;
        }
        if (payload != null) {
          pieces[pieceCount++] = headers.slice(begun, headers.position() - begun);
          pieces[pieceCount++] = payload.duplicate();
          begun = headers.position();
        }
        rest = rest.next;
      }
      if (pieceCount == 0) {
        wire.write(headers.flip());
      } else {
        pieces[pieceCount++] = headers.slice(begun, headers.position() - begun);
        wire.write(pieces, pieceCount);
      }
      if (piped != null) {
        wire.write(piped, headers);
      }
    } catch (IOException failure) {
      link.fail(failure);
    } catch (RuntimeException | Error failure) {
      // Part of a request may have been sent. Go on: other threads wait for this one.
      rest = rest == first ? first.next : rest;
      link.giveUp("a request could not be sent", failure);
    } finally {
      Arrays.fill(pieces, 0, pieceCount, null);
      Request sent = first;
      while (sent != null && sent != rest) {
        // After sent() the request belongs to its caller.
        Request after = sent.next;
        sent.next = null;
        sent.sent();
        sent = after;
      }
    }
    return rest;
  }
}
