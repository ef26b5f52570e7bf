package nbd.transmission;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Optional;
import java.util.PriorityQueue;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.NbdException;
import nbd.storage.BufferPool;

/**
 * Admits requests that cannot be answered at once, by the memory that they hold. There is one for a
 * server, with a {@link Share} for each connection and a {@link Reservation} for each admitted
 * request.
 *
 * <p>A request is admitted with all the memory that it will ever hold, so who holds memory never
 * waits for more: it waits for storage or for its client.
 *
 * <ul>
 *   <li>The first {@link #OWN_BYTES} that a connection holds are its own. Only what it holds beyond
 *       them counts against the bound.
 *   <li>Those that do not fit wait, and only the first of them is given what becomes free; but
 *       nobody waits behind others once its connection's own bytes suffice. Who wants less goes
 *       before those that want more, so that many who announce much do not keep others waiting; but
 *       only until {@link #OVERTAKING} times the bytes that a request wants have been admitted
 *       since it came.
 *   <li>A READ never waits for its buffer. It gets one only while half of the bound is left, and is
 *       sent piece by piece otherwise. So clients that take no replies leave half to WRITEs.
 *   <li>A client that holds memory beyond its own is cut while others wait, if it has moved so
 *       little of what it is waited for that all of it would take longer than {@link #TURNOVER}
 *       times the patience (see {@link Pace}). Nobody is cut while nobody waits.
 * </ul>
 *
 * <p>Invariant: {@code shared} is the sum of what the shares hold beyond their own bytes, and at
 * most the bound.
 */
public final class Admission {
  /** What a request costs beside its buffer: mostly the stack of its virtual thread. */
  public static final int REQUEST_BYTES = 2 << 10;

  /** A READ or two WRITEs of 256 KiB, as nbdcopy sends them; held only while it is used. */
  public static final int OWN_BYTES = (512 << 10) + 2 * REQUEST_BYTES;

  /** More than any client keeps in flight on one connection at slow storage. */
  public static final int MAXIMUM_REQUESTS = 1024;

  /** What one connection may hold, unless it is by a single request: two of the largest WRITEs. */
  static final long MAXIMUM_BYTES = (64L << 20) + 2 * REQUEST_BYTES;

  /** The longest WRITE, and as much again as a connection has of its own. */
  public static final long MINIMUM_BYTES = 33L << 20;

  /** By how many times its own bytes a request may be overtaken. */
  static final int OVERTAKING = 16;

  /** How many times the patience a client has to move all that it holds. */
  static final int TURNOVER = 5;

  private final long bound;
  private final long patienceNanos;
  private final BufferPool buffers;
  private final Set<Share> shares = ConcurrentHashMap.newKeySet();
  private final AtomicLong shared = new AtomicLong();

  /** Guards the queue; taken before a share's lock. */
  private final ReentrantLock lock = new ReentrantLock();

  private final PriorityQueue<Waiter> queue = new PriorityQueue<>();

  /** Whether the queue is not empty; written under the lock. */
  private volatile boolean contested;

  /** The bytes that have been admitted from the queue; guarded by the lock. */
  private long admitted;

  private long arrivals;

  /**
   * A thread that waits to be admitted.
   *
   * @param rank the least is the first: what the request wants, and what had been admitted when it
   *     came, divided by {@link #OVERTAKING}
   */
  private record Waiter(long rank, long arrival, Share share) implements Comparable<Waiter> {
    @Override
    public int compareTo(Waiter other) {
      int byRank = Long.compare(rank, other.rank);
      return byRank != 0 ? byRank : Long.compare(arrival, other.arrival);
    }
  }

  /**
   * Admits requests of up to so many bytes.
   *
   * @param bound in bytes, at least {@link #MINIMUM_BYTES}
   * @param patience how long a client may move nothing while others wait
   */
  public Admission(long bound, Duration patience) {
    this(bound, patience, new BufferPool(bound));
  }

  public Admission(long bound, Duration patience, BufferPool buffers) {
    if (bound < MINIMUM_BYTES) {
      throw new IllegalArgumentException(bound + " bytes for requests in flight are too few");
    }
    this.bound = bound;
    this.patienceNanos = patience.toNanos();
    this.buffers = buffers;
  }

  /** The buffers of requests, and of what a connection needs beside them. */
  public BufferPool buffers() {
    return buffers;
  }

  /** The bytes that admitted requests hold. */
  public long held() {
    return shares.stream().mapToLong(Share::heldBytes).sum();
  }

  /** The bytes of a request whose buffer has this length; no buffer if it is 0. */
  static long bytesFor(int length) {
    return length == 0 ? REQUEST_BYTES : REQUEST_BYTES + (long) BufferPool.capacityFor(length);
  }

  /**
   * Makes room for one more connection.
   *
   * @param cut ends it if its client holds others up; any thread calls it
   */
  public Share open(Runnable cut) {
    Share share = new Share(cut);
    shares.add(share);
    return share;
  }

  private boolean tryTake(long bytes, long most) {
    long before = shared.get();
    while (bytes <= most - before) {
      long witness = shared.compareAndExchange(before, before + bytes);
      if (witness == before) {
        return true;
      }
      before = witness;
    }
    return false;
  }

  @SuppressWarnings("ReferenceEquality") // it is this one that has to be the first
  private void await(Share share, long bytes) {
    lock.lock();
    try {
      Waiter me = new Waiter(admitted / OVERTAKING + bytes, arrivals++, share);
      try {
        queue.add(me);
        contested = true;
        while (!share.tryReserve(bytes, queue.peek() == me ? bound : 0)) {
          share.freed.awaitUninterruptibly();
        }
        admitted += bytes;
      } finally {
        queue.remove(me);
        contested = !queue.isEmpty();
        signalFirst();
      }
    } finally {
      lock.unlock();
    }
  }

  private void signalFirst() {
    Waiter first = queue.peek();
    if (first != null) {
      first.share.freed.signal();
    }
  }

  private void giveBack(Share share, long bytes) {
    shared.addAndGet(-bytes);
    // Who waits looks again after it has said so: what it could miss is seen here.
    if (contested) {
      lock.lock();
      try {
        signalFirst();
        share.freed.signal();
      } finally {
        lock.unlock();
      }
    }
  }

  /**
   * Cuts clients that hold others up. Called at regular intervals by one thread.
   *
   * @param elapsedNanos the interval
   */
  public void cutStalled(long elapsedNanos) {
    boolean cuts = contested;
    for (Share share : shares) {
      share.cutIfStalled(elapsedNanos, cuts);
    }
  }

  /**
   * How quickly a client moves bytes in one direction while it is waited for. One thread at a time
   * says what it moves; another one judges.
   */
  static final class Pace {
    private volatile boolean waiting;
    private volatile long moved;
    private long seen;
    private long behindNanos;

    /** The server waits for the client from now on. */
    void begin() {
      waiting = true;
    }

    /** So many bytes have come, or have been taken. */
    @SuppressWarnings("NonAtomicVolatileUpdate") // one thread at a time writes it
    void moved(long bytes) {
      moved += bytes;
    }

    /** The server waits no more. */
    void end() {
      waiting = false;
    }

    /**
     * Counts how far the client is behind the rate that would move what it holds in time; whether
     * that is more than the patience.
     */
    private boolean stalls(long elapsedNanos, long heldBytes, long patienceNanos) {
      long now = moved;
      double part = (double) (now - seen) / heldBytes;
      seen = now;
      long waited = waiting ? elapsedNanos : -elapsedNanos;
      long behind = behindNanos + waited - (long) (part * patienceNanos * TURNOVER);
      // Not more, so that a client that goes on has soon caught up.
      behindNanos = Math.clamp(behind, 0, patienceNanos + elapsedNanos);
      return behindNanos > patienceNanos;
    }

    private void forgive() {
      seen = moved;
      behindNanos = 0;
    }
  }

  /**
   * What the requests of one connection hold. The connection's thread has them admitted, one after
   * the other; any thread ends them.
   *
   * <p>Invariant: {@code requests} and {@code bytes} are those of all reservations that have not
   * been left, and guarded by the lock. {@code requests} is at most {@link #MAXIMUM_REQUESTS};
   * {@code bytes} at most {@link #MAXIMUM_BYTES}, or those of a single request.
   */
  public final class Share implements AutoCloseable {
    private final Runnable cut;
    private final Pace receiving = new Pace();
    private final Pace sending = new Pace();
    private final ReentrantLock lock = new ReentrantLock();
    private final Condition left = lock.newCondition();

    /** Signalled when the thread that waits for memory may be admitted. */
    private final Condition freed = Admission.this.lock.newCondition();

    private int requests;
    private long bytes;
    private volatile boolean waitsForMemory;
    private boolean wasCut;

    private Share(Runnable cut) {
      this.cut = cut;
    }

    /** How quickly the client sends the payloads that memory is held for. */
    Pace receiving() {
      return receiving;
    }

    /** How quickly the client takes replies. */
    public Pace sending() {
      return sending;
    }

    public BufferPool buffers() {
      return buffers;
    }

    private boolean isFull(long more) {
      return requests > 0 && (requests >= MAXIMUM_REQUESTS || bytes + more > MAXIMUM_BYTES);
    }

    private static long beyondOwn(long bytes) {
      return Math.max(0, bytes - OWN_BYTES);
    }

    private boolean tryReserve(long more, long most) {
      lock.lock();
      try {
        if (isFull(more)) {
          return false;
        }
        long need = beyondOwn(bytes + more) - beyondOwn(bytes);
        if (need > 0 && !tryTake(need, most)) {
          return false;
        }
        requests++;
        bytes += more;
        return true;
      } finally {
        lock.unlock();
      }
    }

    private Optional<Reservation> tryAdmit(long more, long most) {
      // Made before it is counted: an Error in between would leave the count behind.
      Optional<Reservation> reservation = Optional.of(new Reservation(this, more));
      return tryReserve(more, contested ? 0 : most) ? reservation : Optional.empty();
    }

    /** Admits a request of so many bytes, unless it would have to wait. */
    Optional<Reservation> tryAdmit(long more) {
      return tryAdmit(more, bound);
    }

    /** Admits a READ with a buffer for its reply, if memory is plentiful. */
    Optional<Reservation> tryAdmitReply(long more) {
      return tryAdmit(more, bound / 2);
    }

    /** Whether the connection's other requests leave room for one of so many bytes. */
    boolean hasRoom(long more) {
      lock.lock();
      try {
        return !isFull(more);
      } finally {
        lock.unlock();
      }
    }

    /** Waits until the connection's other requests leave room for one of so many bytes. */
    void awaitRoom(long more) {
      lock.lock();
      try {
        while (isFull(more)) {
          left.awaitUninterruptibly();
        }
      } finally {
        lock.unlock();
      }
    }

    /** Waits for room, and then for memory. */
    Reservation admit(long more) {
      Reservation reservation = new Reservation(this, more);
      awaitRoom(more);
      waitsForMemory = true;
      try {
        await(this, more);
      } finally {
        waitsForMemory = false;
      }
      return reservation;
    }

    private void giveBackBytes(long count, int reservations) {
      long back;
      lock.lock();
      try {
        back = beyondOwn(bytes) - beyondOwn(bytes - count);
        bytes -= count;
        requests -= reservations;
        left.signalAll();
      } finally {
        lock.unlock();
      }
      giveBack(this, back);
    }

    /** Whether no request is in flight. */
    boolean isEmpty() {
      lock.lock();
      try {
        return requests == 0;
      } finally {
        lock.unlock();
      }
    }

    /** Waits until no request is in flight. */
    void awaitNone() {
      lock.lock();
      try {
        while (requests > 0) {
          left.awaitUninterruptibly();
        }
      } finally {
        lock.unlock();
      }
    }

    private long heldBytes() {
      lock.lock();
      try {
        return bytes;
      } finally {
        lock.unlock();
      }
    }

    /** Who waits for memory itself is not judged: its client may wait for that to send or take. */
    private void cutIfStalled(long elapsedNanos, boolean othersWait) {
      long now = heldBytes();
      if (now <= OWN_BYTES || waitsForMemory) {
        receiving.forgive();
        sending.forgive();
        return;
      }
      boolean sendsTooLittle = receiving.stalls(elapsedNanos, now, patienceNanos);
      boolean takesTooLittle = sending.stalls(elapsedNanos, now, patienceNanos);
      if ((sendsTooLittle || takesTooLittle) && othersWait && !wasCut) {
        wasCut = true;
        cut.run();
      }
    }

    /** Ends the connection's share; all requests have left. */
    @Override
    public void close() {
      shares.remove(this);
    }
  }

  /** One admitted request. Filled by the connection's thread, left by the one that serves it. */
  static final class Reservation {
    private final Share share;
    private final AtomicBoolean released = new AtomicBoolean();
    private Optional<ByteBuffer> buffer = Optional.empty();
    private long bytes;

    private Reservation(Share share, long bytes) {
      this.share = share;
      this.bytes = bytes;
    }

    /**
     * Gets the buffer that the request was admitted with.
     *
     * @throws NbdException ENOMEM if the JVM has no memory left
     */
    ByteBuffer allocate(int length) throws NbdException {
      ByteBuffer taken = share.buffers().take(length);
      buffer = Optional.of(taken);
      return taken;
    }

    /** Whether a buffer was admitted. */
    boolean hasMemory() {
      return bytes > REQUEST_BYTES;
    }

    /** The buffer, if the request has one. */
    Optional<ByteBuffer> buffer() {
      return buffer;
    }

    /** Gives the buffer back: what is left to do needs none. */
    void releaseBuffer() {
      buffer.ifPresent(share.buffers()::giveBack);
      buffer = Optional.empty();
      long rest = bytes - REQUEST_BYTES;
      if (rest > 0) {
        bytes = REQUEST_BYTES;
        share.giveBackBytes(rest, 0);
      }
    }

    /** Gives everything back; changes nothing when it is called again. */
    void release() {
      if (released.compareAndSet(false, true)) {
        releaseBuffer();
        share.giveBackBytes(bytes, 1);
      }
    }

    /** Leaves, but for the buffer, which somebody may still use: the collector takes it. */
    void abandon() {
      if (released.compareAndSet(false, true)) {
        share.giveBackBytes(bytes, 1);
      }
    }
  }
}
