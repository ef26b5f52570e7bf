package nbd.client;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.atomic.AtomicReference;
import nbd.protocol.OutgoingRequest;
import org.jspecify.annotations.Nullable;

/**
 * Sends requests: whoever comes while another thread sends leaves its request with that one, which
 * sends everything that has been left by one call, payloads without a copy. What many ask for at a
 * time thus costs few system calls, and nobody waits for a lock.
 *
 * <p>Invariants: {@code last} is null if and only if nobody leads, and then nothing is queued; only
 * the leader takes from the queue, writes to the wire and uses the buffers here. A leader whose own
 * request is done hands over to one whose request is still queued, which therefore still waits, if
 * a thread waits for it: so nobody sends for others for long.
 */
final class SendQueue {
  /** So many requests leave by one call. */
  private static final int BATCH = 64;

  /** The end of the queue while somebody leads. */
  private static final Request LEADING = Request.mark();

  /** Sentinel: the leader waits for no request of its own. */
  private static final Request NO_CALLER = Request.mark();

  private final Wire wire;
  private final Link link;
  private final boolean extended;

  /** What was left last, linked to what was left before; null if nobody leads. */
  private final AtomicReference<@Nullable Request> last = new AtomicReference<>();

  /** What a leader has handed over, first come first; belongs to the leader. */
  private @Nullable Request handedOver;

  private final ByteBuffer headers = ByteBuffer.allocateDirect(BATCH * OutgoingRequest.MOST_BYTES);
  private final ByteBuffer[] pieces = new ByteBuffer[2 * BATCH + 1];

  SendQueue(Wire wire, Link link, boolean extended) {
    this.wire = wire;
    this.link = link;
    this.extended = extended;
  }

  /** Queues a request of this thread, and sends if nobody does. */
  void send(Request request) {
    if (queue(request, request)) {
      lead(request);
    }
  }

  /**
   * Queues requests that no thread waits for, and sends if nobody does.
   *
   * @param newest linked to the one before it, and so on
   * @param oldest the end of these links
   */
  void sendAll(Request newest, Request oldest) {
    if (queue(newest, oldest)) {
      lead(NO_CALLER);
    }
  }

  /** Whether nobody led before. */
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

  /** Sends until nothing is queued, or until somebody else leads. */
  void lead(Request own) {
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

  /** Hands what is left over to a thread that waits for some of it; false if none does. */
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

  /** What is queued, first come first. */
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

  /** Writes as many as are written at a time; returns the rest. */
  private @Nullable Request write(Request first) {
    Request rest = first;
    int pieceCount = 0;
    try {
      headers.clear();
      int begun = 0;
      for (int i = 0; i < BATCH && rest != null; i++) {
        OutgoingRequest.write(
            headers,
            extended,
            rest.flags(),
            rest.command(),
            rest.cookie(),
            rest.offset(),
            rest.length());
        ByteBuffer payload = rest.payload();
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
    } catch (IOException failure) {
      link.fail(failure);
    } catch (RuntimeException | Error failure) {
      // What has been sent of a request is unknown; others wait for this thread to go on.
      rest = rest == first ? first.next : rest;
      link.giveUp("a request could not be sent", failure);
    } finally {
      java.util.Arrays.fill(pieces, 0, pieceCount, null);
      Request sent = first;
      while (sent != null && sent != rest) {
        // Its thread may leave as soon as it is told.
        Request after = sent.next;
        sent.next = null;
        sent.sent();
        sent = after;
      }
    }
    return rest;
  }
}
