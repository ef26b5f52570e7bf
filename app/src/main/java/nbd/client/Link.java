package nbd.client;

import java.io.EOFException;
import java.io.IOException;
import java.time.Duration;
import java.util.Iterator;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import nbd.protocol.ProtocolException;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The requests in flight on one connection, and whether the connection still works.
 *
 * <p>Invariant: {@code broken} is set once and never cleared. A request is put into the table
 * before {@code broken} is looked at, and the thread that reads empties the table after {@code
 * broken} was set: so each request is either answered, or emptied out, or taken back by its own
 * caller, and nobody waits for ever.
 */
final class Link {
  /** Needs no memory. */
  private static final Broken UNKNOWN = new Broken("the connection broke", true);

  private final String name;
  private final Wire wire;
  private volatile Duration patience;

  private final ConcurrentHashMap<Long, Request> inFlight = new ConcurrentHashMap<>();
  private final AtomicLong cookies = new AtomicLong(1);
  private final AtomicReference<@Nullable Broken> broken = new AtomicReference<>();

  /**
   * How many answers the server owes, and since when. The time is written before the count leaves
   * zero; the count only falls after something was heard. So the later one of this time and when
   * the server was last heard is when its silence began.
   */
  private final AtomicInteger owed = new AtomicInteger();

  private volatile long owedSince;
  private volatile @Nullable Future<?> watch;

  /**
   * Why a connection does not work any more.
   *
   * @param givenUp whether it was this side that ended it, so that the server may still carry out
   *     what was in flight
   */
  record Broken(String reason, boolean givenUp) {}

  /**
   * Begins without a request.
   *
   * @param name of the server, for messages
   * @param patience how long the server may be silent while it owes an answer; zero for any time
   */
  Link(String name, Wire wire, Duration patience) {
    this.name = name;
    this.wire = wire;
    this.patience = patience;
  }

  /** Looks at the clock from now on. */
  void watch() {
    if (patience.isPositive()) {
      lookAgainIn(patience);
    }
  }

  /** From now on the server may be silent for no longer than this while it owes an answer. */
  void limitPatience(Duration most) {
    Duration before = patience;
    if (before.isZero() || before.compareTo(most) > 0) {
      patience = most;
      stopWatching();
      lookAgainIn(most);
    }
  }

  private void lookAgainIn(Duration delay) {
    watch = Timers.after(delay, this::look);
    if (broken.get() != null) {
      stopWatching();
    }
  }

  private void stopWatching() {
    Future<?> scheduled = watch;
    if (scheduled != null) {
      scheduled.cancel(false);
    }
  }

  /** A look that fails must not be the last. */
  private void look() {
    try {
      lookOnce();
    } catch (RuntimeException | Error mistake) {
      lookAgainIn(patience);
      throw mistake;
    }
  }

  private void lookOnce() {
    long left = Timers.nanos(patience);
    if (owed.get() > 0) {
      long now = System.nanoTime();
      left -= Math.min(now - owedSince, now - wire.heard());
    }
    if (left <= 0) {
      giveUp(
          "the server has owed an answer and said nothing for "
              + ConnectDeadline.described(patience));
    } else {
      lookAgainIn(Duration.ofNanos(left));
    }
  }

  /** For messages. */
  String name() {
    return name;
  }

  /** A number that no other request of this connection has. */
  long nextCookie() {
    return cookies.getAndIncrement();
  }

  /**
   * Puts a request into the table; it may be sent then.
   *
   * @return why it may not, if the connection is broken; then it is not in the table
   */
  @Nullable String add(Request request) {
    if (owed.get() == 0) {
      owedSince = System.nanoTime();
    }
    inFlight.put(request.cookie(), request);
    owed.incrementAndGet();
    Broken why = broken.get();
    if (why != null && inFlight.remove(request.cookie()) != null) {
      owed.decrementAndGet();
      return why.reason;
    }
    return null;
  }

  /** The request that a reply is for. */
  Request find(long cookie) throws ProtocolException {
    Request request = inFlight.get(cookie);
    if (request == null) {
      throw new ProtocolException(
          "the server answered a request that was not made (cookie 0x%x)".formatted(cookie));
    }
    return request;
  }

  /** The reply is complete. */
  void answer(Request request) {
    inFlight.remove(request.cookie());
    owed.decrementAndGet();
    request.answered();
  }

  /** Nothing can be sent or read any more; what is in flight fails when the reading thread ends. */
  void fail(IOException failure) {
    String reason = UNKNOWN.reason;
    boolean givenUp = true;
    try {
      reason = described(failure);
      givenUp = !isServersEnd(failure);
    } catch (RuntimeException | Error outOfMemory) {
      // Whose end it was is not known.
    }
    end(reason, givenUp);
  }

  /** The server has ended the connection. */
  void ended() {
    end("the server closed the connection", false);
  }

  /** Ends the connection after a mistake, or for want of memory. */
  void giveUp(String what, Throwable mistake) {
    String reason = what;
    try {
      reason = what + ": " + mistake;
    } catch (RuntimeException | Error outOfMemory) {
      // What it was about is known without.
    }
    end(reason, true);
  }

  /** Ends the connection for a reason of this side's. */
  void giveUp(String reason) {
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

  /** Whether the server, or its system, has ended the connection; on any doubt it has not. */
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
   * Takes no more requests; what is in flight goes on. The first reason counts.
   *
   * @return whether it worked until now
   */
  boolean refuse(String reason, boolean givenUp) {
    boolean first = broken.compareAndSet(null, new Broken(name + ": " + reason, givenUp));
    if (first) {
      Logger.debug("{}: {}", name, reason);
    }
    stopWatching();
    return first;
  }

  /** Why it is broken; null if it is not. */
  @Nullable Broken broken() {
    return broken.get();
  }

  /** Fails what is in flight; called by the reading thread, at its end. */
  void loseAll() {
    broken.compareAndSet(null, UNKNOWN);
    Iterator<Request> requests = inFlight.values().iterator();
    while (requests.hasNext()) {
      Request request = requests.next();
      if (inFlight.remove(request.cookie()) != null) {
        owed.decrementAndGet();
        request.lose();
        request.answered();
      }
    }
  }
}
