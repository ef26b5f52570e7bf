package nbd.client;

import java.io.EOFException;
import java.io.IOException;
import java.time.Duration;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import nbd.protocol.ProtocolException;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The requests in flight on a connection, and whether the connection still works.
 *
 * <p>Invariant: {@code broken} is set once and never cleared. A caller puts its request into the
 * table before it looks at {@code broken}, and the thread that reads empties the table after {@code
 * broken} was set. So each request is answered, removed by the reading thread, or taken back by its
 * caller, and no caller waits for ever.
 */
final class Link {
  /** Made in advance, for when memory has run out. */
  private static final Broken UNKNOWN = new Broken("the connection broke", true);

  private final String name;
  private final Wire wire;
  private volatile Duration patience;

  private final ConcurrentHashMap<Long, Request> inFlight = new ConcurrentHashMap<>();
  private final AtomicLong cookies = new AtomicLong(1);
  private final AtomicReference<@Nullable Broken> broken = new AtomicReference<>();

  /**
   * The number of replies that are due. {@code dueSince} is written before the number leaves zero,
   * and the number falls only after something has arrived. So the server has been silent since
   * {@code dueSince} or since it was last active, whichever is later.
   */
  private final AtomicInteger due = new AtomicInteger();

  private volatile long dueSince;
  private volatile @Nullable Future<?> nextCheck;

  /**
   * The reason why a connection does not work any more.
   *
   * @param givenUp whether this side ended it, so that the server may still carry out the requests
   *     that were in flight
   */
  record Broken(String reason, boolean givenUp) {}

  /**
   * Begins without a request.
   *
   * @param name of the server, for messages
   * @param patience how long the server may be silent while a reply is due; zero for any time
   */
  Link(String name, Wire wire, Duration patience) {
    this.name = name;
    this.wire = wire;
    this.patience = patience;
  }

  /** Starts to check for silence. */
  void watch() {
    if (patience.isPositive()) {
      checkIn(patience);
    }
  }

  /** Shortens the time for which the server may be silent while a reply is due. */
  void limitPatience(Duration most) {
    Duration before = patience;
    if (before.isZero() || before.compareTo(most) > 0) {
      patience = most;
      stopChecking();
      checkIn(most);
    }
  }

  private void checkIn(Duration delay) {
    nextCheck = Timers.after(delay, this::check);
    if (broken.get() != null) {
      stopChecking();
    }
  }

  private void stopChecking() {
    Future<?> scheduled = nextCheck;
    if (scheduled != null) {
      scheduled.cancel(false);
    }
  }

  private void check() {
    try {
      long left = TimeUnit.NANOSECONDS.convert(patience);
      if (due.get() > 0) {
        long now = System.nanoTime();
        left -= Math.min(now - dueSince, now - wire.lastActive());
      }
      if (left > 0) {
        checkIn(Duration.ofNanos(left));
      } else {
        end(
            "the server has sent nothing for %s while a reply was due"
                .formatted(ConnectDeadline.described(patience)),
            true);
      }
    } catch (RuntimeException | Error mistake) {
      // A check that fails must not be the last.
      checkIn(patience);
      throw mistake;
    }
  }

  String name() {
    return name;
  }

  /** Returns a number that no other request of this connection has. */
  long nextCookie() {
    return cookies.getAndIncrement();
  }

  /**
   * Puts a request into the table, before it is sent.
   *
   * @return why it may not be sent, if the connection is broken; then it is not in the table
   */
  @Nullable String add(Request request) {
    if (due.get() == 0) {
      dueSince = System.nanoTime();
    }
    inFlight.put(request.cookie, request);
    due.incrementAndGet();
    Broken why = broken.get();
    return why != null && remove(request) ? why.reason : null;
  }

  private boolean remove(Request request) {
    boolean removed = inFlight.remove(request.cookie) != null;
    if (removed) {
      due.decrementAndGet();
    }
    return removed;
  }

  /** Finds the request that a reply is for. */
  Request find(long cookie) throws ProtocolException {
    Request request = inFlight.get(cookie);
    if (request == null) {
      throw new ProtocolException(
          "the server answered a request that was not made (cookie 0x%x)".formatted(cookie));
    }
    return request;
  }

  /** Ends a request whose reply is complete. */
  void answer(Request request) {
    remove(request);
    request.answered();
  }

  /** Ends the connection after a failed call; requests in flight fail when the reader ends. */
  void fail(IOException failure) {
    String reason = UNKNOWN.reason;
    boolean givenUp = true;
    try {
      reason = described(failure);
      givenUp = !isServersEnd(failure);
    } catch (RuntimeException | Error outOfMemory) {
      // The reason stays unknown.
    }
    end(reason, givenUp);
  }

  /** Ends the connection that the server has closed. */
  void ended() {
    end("the server closed the connection", false);
  }

  /** Ends the connection after a mistake, or for want of memory. */
  void giveUp(String what, Throwable mistake) {
    String reason = what;
    try {
      reason = what + ": " + mistake;
    } catch (RuntimeException | Error outOfMemory) {
      // The reason stays short.
    }
    end(reason, true);
  }

  private void end(String reason, boolean givenUp) {
    try {
      refuse(reason, givenUp);
    } catch (RuntimeException | Error outOfMemory) {
      broken.compareAndSet(null, UNKNOWN);
    }
    if (givenUp) {
      wire.drop();
    } else {
      wire.cut();
    }
  }

  /** Says whether the server or its system has certainly ended the connection. */
  private static boolean isServersEnd(IOException failure) {
    return (failure instanceof EOFException) || Connector.isReset(failure.getMessage());
  }

  private static String described(IOException failure) {
    if (failure instanceof ProtocolException) {
      return String.valueOf(failure.getMessage());
    }
    if (failure instanceof EOFException) {
      return "the server closed the connection in the middle of a reply";
    }
    String message = failure.getMessage();
    return "the connection broke: "
        + (message == null ? failure.getClass().getSimpleName() : message);
  }

  /**
   * Refuses further requests, while those in flight go on. The first reason is kept.
   *
   * @return whether the connection worked until now
   */
  boolean refuse(String reason, boolean givenUp) {
    boolean first = broken.compareAndSet(null, new Broken(name + ": " + reason, givenUp));
    if (first) {
      Logger.debug("{}: {}", name, reason);
    }
    stopChecking();
    return first;
  }

  /** Says why the connection is broken; null if it is not. */
  @Nullable Broken broken() {
    return broken.get();
  }

  /** Fails the requests in flight. Called by the reading thread at its end. */
  void loseAll() {
    broken.compareAndSet(null, UNKNOWN);
    for (Request request : inFlight.values()) {
      if (remove(request)) {
        request.lost = true;
        request.answered();
      }
    }
  }
}
