package nbd.transmission;

import java.io.IOException;
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
import java.util.function.BooleanSupplier;
import nbd.posix.Pipe;
import nbd.posix.PipePool;
import nbd.protocol.NbdException;
import nbd.storage.BufferPool;

/**
 * The admission of requests that cannot be answered at once, by the memory that they hold. A server
 * has one, with a {@link Share} for each connection and a {@link Reservation} for each admitted
 * request.
 *
 * <p>A request is admitted with all the memory that it will ever hold. So a request that holds
 * memory waits for storage or for its client, never for more memory.
 *
 * <ul>
 *   <li>Each connection has {@link #OWN_BYTES} of its own. Only the bytes that it holds beyond them
 *       count against the bound.
 *   <li>Requests that do not fit wait in a queue, and only the first is given freed memory. But a
 *       request for which its connection's own bytes suffice does not wait behind others.
 *   <li>A request goes before larger ones, so that many clients that announce much do not keep
 *       others waiting. But at most {@link #OVERTAKING} times a request's own bytes are admitted
 *       before it.
 *   <li>A READ never waits for its buffer. It gets one only while half of the bound is left, and is
 *       sent piece by piece otherwise. So clients that take no replies leave half to WRITEs.
 *   <li>A client that holds memory beyond its own while others wait for memory is disconnected if,
 *       at its pace, moving all that it holds would take longer than {@link #TURNOVER} times the
 *       patience (see {@link Pace}).
 * </ul>
 *
 * <p>Invariant: {@code shared} is the sum of the bytes that the shares hold beyond their own, and
 * at most the bound.
 */
public final class Admission {
  /** The bytes of a request beside its buffer: mostly the stack of its virtual thread. */
  public static final int REQUEST_BYTES = 2 << 10;

  /** One READ or two WRITEs of 256 KiB, as nbdcopy sends them. */
  public static final int OWN_BYTES = (512 << 10) + 2 * REQUEST_BYTES;

  /** More than any client keeps in flight on one connection at slow storage. */
  public static final int MAXIMUM_REQUESTS = 1024;

  /** The limit for one connection, unless it has a single request: two of the largest WRITEs. */
  static final long MAXIMUM_BYTES = (64L << 20) + 2 * REQUEST_BYTES;

  /** The least bound: the longest WRITE, and some room. */
  public static final long MINIMUM_BYTES = 33L << 20;

  /** The limit on the bytes that overtake a request, in multiples of its own. */
  static final int OVERTAKING = 16;

  /** The time that a client has to move all that it holds, in multiples of the patience. */
  static final int TURNOVER = 5;

  private final long bound;
  private final long patienceNanos;
  private final BufferPool buffers;
  private final PipePool pipes = new PipePool();
  private final Set<Share> shares = ConcurrentHashMap.newKeySet();
  private final AtomicLong shared = new AtomicLong();

  /** Guards the queue; taken before a share's lock. */
  private final ReentrantLock lock = new ReentrantLock();

  private final PriorityQueue<Waiter> queue = new PriorityQueue<>();

  /** True while the queue is not empty; written under the lock. */
  private volatile boolean contested;

  /** The bytes that have been admitted from the queue; guarded by the lock. */
  private long admitted;

  private long arrivals;

  /**
   * A thread that waits to be admitted.
   *
   * @param rank the request's bytes, and the bytes that had been admitted when it came, divided by
   *     {@link #OVERTAKING}; the least is the first
   */
  private record Waiter(long rank, long arrival, Share share) implements Comparable<Waiter> {
    @Override
    public int compareTo(Waiter other) {
      int byRank = Long.compare(rank, other.rank);
      return byRank != 0 ? byRank : Long.compare(arrival, other.arrival);
    }
  }

  /**
   * Admits requests up to a bound.
   *
   * @param bound in bytes, at least {@link #MINIMUM_BYTES}
   * @param patience the time that a client may move nothing while others wait
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

  /** Returns the buffers of requests and connections. */
  public BufferPool buffers() {
    return buffers;
  }

  /** Returns the bytes that admitted requests hold. */
  public long held() {
    return shares.stream().mapToLong(Share::heldBytes).sum();
  }

  /** Returns the bytes of a request whose buffer has this length; 0 for no buffer. */
  static long bytesFor(int length) {
    return length == 0 ? REQUEST_BYTES : REQUEST_BYTES + (long) BufferPool.capacityFor(length);
  }

  /**
   * Opens a connection's share.
   *
   * @param disconnect ends the connection if its client holds others up; any thread calls it
   */
  public Share open(Runnable disconnect) {
    Share share = new Share(disconnect);
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
    // A waiter sets this before it looks at the bytes: it sees those given back, or is seen here.
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

  /** Disconnects clients that hold others up. One thread calls this once in each interval. */
  public void disconnectStalled(long intervalNanos) {
    boolean othersWait = contested;
    for (Share share : shares) {
      share.disconnectIfStalled(intervalNanos, othersWait);
    }
  }

  /**
   * A client's pace in one direction: the bytes that it moves while the server waits for it. One
   * thread at a time reports them; another one judges.
   */
  static final class Pace {
    private volatile boolean waiting;
    private volatile long moved;
    private long seen;
    private long behindNanos;

    /** Notes that the server waits for the client from now on. */
    void begin() {
      waiting = true;
    }

    /** Adds bytes that the client has sent or taken. */
    @SuppressWarnings("NonAtomicVolatileUpdate") // one thread at a time writes it
    void moved(long bytes) {
      moved += bytes;
    }

    /** Notes that the server waits no more. */
    void end() {
      waiting = false;
    }

    /**
     * Adds up the time that the client is behind the pace that moves all that it holds in {@link
     * #TURNOVER} times the patience; says whether it is more than the patience.
     */
    private boolean stalls(long elapsedNanos, long heldBytes, long patienceNanos) {
      long now = moved;
      double part = (double) (now - seen) / heldBytes;
      seen = now;
      long waited = waiting ? elapsedNanos : -elapsedNanos;
      long behind = behindNanos + waited - (long) (part * patienceNanos * TURNOVER);
      // With a limit, so that a client that goes on has soon caught up.
      behindNanos = Math.clamp(behind, 0, patienceNanos + elapsedNanos);
      return behindNanos > patienceNanos;
    }

    private void forgive() {
      seen = moved;
      behindNanos = 0;
    }
  }

  /**
   * The memory that the requests of one connection hold. The connection's thread has them admitted,
   * one after the other; any thread releases them.
   *
   * <p>Invariant: {@code requests} and {@code bytes} are those of all reservations that have not
   * been released, and guarded by the lock. {@code requests} is at most {@link #MAXIMUM_REQUESTS};
   * {@code bytes} at most {@link #MAXIMUM_BYTES}, or those of a single request.
   */
  public final class Share implements AutoCloseable {
    private final Runnable disconnect;
    private final Pace receiving = new Pace();
    private final Pace sending = new Pace();
    private final ReentrantLock lock = new ReentrantLock();
    private final Condition released = lock.newCondition();

    /** Signalled when the thread that waits for memory may be admitted. */
    private final Condition freed = Admission.this.lock.newCondition();

    private int requests;
    private long bytes;
    private volatile boolean waitsForMemory;
    private boolean disconnected;

    private Share(Runnable disconnect) {
      this.disconnect = disconnect;
    }

    /** Returns the client's pace in sending payloads that memory is held for. */
    Pace receiving() {
      return receiving;
    }

    /** Returns the client's pace in taking replies. */
    public Pace sending() {
      return sending;
    }

    public BufferPool buffers() {
      return buffers;
    }

    private PipePool pipes() {
      return pipes;
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

    private void await(BooleanSupplier reached) {
      lock.lock();
      try {
        while (!reached.getAsBoolean()) {
          released.awaitUninterruptibly();
        }
      } finally {
        lock.unlock();
      }
    }

    /** Waits until the connection's other requests leave room for one of so many bytes. */
    void awaitRoom(long more) {
      await(() -> !isFull(more));
    }

    /** Waits until no request is in flight. */
    void awaitNone() {
      await(() -> requests == 0);
    }

    /** Waits for room, and then for memory. */
    Reservation admit(long more) {
      Reservation reservation = new Reservation(this, more);
      awaitRoom(more);
      waitsForMemory = true;
      try {
        Admission.this.await(this, more);
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
        released.signalAll();
      } finally {
        lock.unlock();
      }
      giveBack(this, back);
    }

    private long heldBytes() {
      lock.lock();
      try {
        return bytes;
      } finally {
        lock.unlock();
      }
    }

    /** Says whether no request is in flight. */
    boolean isEmpty() {
      return requests() == 0;
    }

    /** Returns the number of requests in flight. */
    int requests() {
      lock.lock();
      try {
        return requests;
      } finally {
        lock.unlock();
      }
    }

    /** Spares a connection that waits for memory: its client may wait for that to move on. */
    private void disconnectIfStalled(long elapsedNanos, boolean othersWait) {
      long held = heldBytes();
      if (held <= OWN_BYTES || waitsForMemory) {
        receiving.forgive();
        sending.forgive();
        return;
      }
      boolean sendsTooLittle = receiving.stalls(elapsedNanos, held, patienceNanos);
      boolean takesTooLittle = sending.stalls(elapsedNanos, held, patienceNanos);
      if ((sendsTooLittle || takesTooLittle) && othersWait && !disconnected) {
        disconnected = true;
        disconnect.run();
      }
    }

    /** Ends the connection's share, all of whose reservations have been released. */
    @Override
    public void close() {
      shares.remove(this);
    }
  }

  /** One admitted request. The connection's thread fills its buffer; any one thread releases it. */
  static final class Reservation {
    private final Share share;
    private final PipePool pipes;
    private final AtomicBoolean released = new AtomicBoolean();
    private Optional<ByteBuffer> buffer = Optional.empty();
    private Optional<Pipe> pipe = Optional.empty();
    private long bytes;

    private Reservation(Share share, long bytes) {
      this.share = share;
      this.pipes = share.pipes();
      this.bytes = bytes;
    }

    /**
     * Takes the buffer that the request was admitted with.
     *
     * @throws NbdException ENOMEM if the JVM has no memory left
     */
    ByteBuffer allocate(int length) throws NbdException {
      ByteBuffer taken = share.buffers().take(length);
      buffer = Optional.of(taken);
      return taken;
    }

    /** Takes a pipe for the data instead of a buffer; empty if none can be had. */
    Optional<Pipe> takePipe() {
      pipe = pipes.take();
      return pipe;
    }

    /** Returns the pipe, if the request has one. */
    Optional<Pipe> pipe() {
      return pipe;
    }

    /**
     * Takes the buffer after all, with what the pipe holds, and gives the pipe back.
     *
     * @throws NbdException ENOMEM if the JVM has no memory left
     */
    ByteBuffer leavePipe(int length) throws IOException {
      buffer.ifPresent(share.buffers()::giveBack);
      buffer = Optional.empty();
      ByteBuffer taken = allocate(length);
      pipe.orElseThrow().take(taken);
      giveBackPipe();
      return taken;
    }

    /** Gives the pipe back, and drops what it holds. */
    void giveBackPipe() {
      pipe.ifPresent(pipes::giveBack);
      pipe = Optional.empty();
    }

    /** Says whether the request was admitted with a buffer. */
    boolean hasMemory() {
      return bytes > REQUEST_BYTES;
    }

    /** Returns the buffer, if the request has taken one. */
    Optional<ByteBuffer> buffer() {
      return buffer;
    }

    /** Gives the buffer back, which the request needs no more. */
    void releaseBuffer() {
      giveBackPipe();
      buffer.ifPresent(share.buffers()::giveBack);
      buffer = Optional.empty();
      long rest = bytes - REQUEST_BYTES;
      if (rest > 0) {
        bytes = REQUEST_BYTES;
        share.giveBackBytes(rest, 0);
      }
    }

    /** Gives everything back. May be called again. */
    void release() {
      if (released.compareAndSet(false, true)) {
        releaseBuffer();
        share.giveBackBytes(bytes, 1);
      }
    }

    /** Gives back all but buffer and pipe, which may still be in use. */
    void abandon() {
      if (released.compareAndSet(false, true)) {
        share.giveBackBytes(bytes, 1);
      }
    }
  }
}
