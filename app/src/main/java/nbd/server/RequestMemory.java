package nbd.server;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;

/**
 * The memory that one request holds: buffers, and where they have to be given back. Added to by the
 * connection's thread, then used and released by the thread that serves the request.
 */
final class RequestMemory {
  private final ConnectionMemory connection;
  private final ServerMemory server;
  private final List<ByteBuffer> buffers = new ArrayList<>(1);
  private int own;
  private long replies;
  private long payloads;
  private long seated;
  private Optional<ServerMemory.Seat> seat = Optional.empty();

  RequestMemory(ConnectionMemory connection) {
    this.connection = connection;
    this.server = connection.server();
  }

  /** The buffers, in the order in which they were added. */
  List<ByteBuffer> buffers() {
    return buffers;
  }

  /** The only buffer. */
  ByteBuffer buffer() {
    return buffers.getFirst();
  }

  /**
   * Adds a buffer for a reply.
   *
   * @return whether there is memory for it
   * @throws NbdException ENOMEM if the JVM has no more
   */
  boolean tryAddForReply(int length) throws NbdException {
    int bytes = BufferPool.capacityFor(length);
    if (!takesOwn(bytes)) {
      if (!server.replies().tryTake(bytes)) {
        return false;
      }
      replies += bytes;
    }
    addBuffer(length);
    return true;
  }

  /**
   * Adds a buffer for a whole payload, if memory is plentiful.
   *
   * @return whether it is
   * @throws NbdException ENOMEM if the JVM has no more
   */
  boolean tryAddWhole(int length) throws NbdException {
    int bytes = BufferPool.capacityFor(length);
    if (!takesOwn(bytes)) {
      if (!server.payloads().tryTakePlenty(bytes)) {
        return false;
      }
      payloads += bytes;
    }
    addBuffer(length);
    return true;
  }

  /**
   * Adds a buffer for a payload, or a part of it.
   *
   * @return whether there is memory for it at once
   * @throws NbdException ENOMEM if the JVM has no more
   */
  boolean tryAdd(int length) throws NbdException {
    int bytes = BufferPool.capacityFor(length);
    if (seat.isPresent()) {
      seated += bytes;
      server.countOutside(bytes);
    } else if (!takesOwn(bytes)) {
      if (!server.payloads().tryTake(bytes)) {
        return false;
      }
      payloads += bytes;
    }
    addBuffer(length);
    return true;
  }

  /**
   * Adds a buffer as {@link #tryAdd}, and waits for the memory: for requests of the same connection
   * if it is short and the first, else for the seat.
   *
   * @throws NbdException ENOMEM if the JVM has no more
   */
  void add(int length) throws NbdException {
    int bytes = BufferPool.capacityFor(length);
    if (buffers.isEmpty() && bytes <= ServerMemory.OWN_BYTES) {
      connection.own().acquireUninterruptibly(bytes);
      tookOwn(bytes);
    } else {
      seat = Optional.of(server.takeSeat(connection.cut()));
      seated += bytes;
      server.countOutside(bytes);
    }
    addBuffer(length);
  }

  private boolean takesOwn(int bytes) {
    boolean taken = connection.own().tryAcquire(bytes);
    if (taken) {
      tookOwn(bytes);
    }
    return taken;
  }

  private void tookOwn(int bytes) {
    own += bytes;
    server.countOutside(bytes);
  }

  private void addBuffer(int length) throws NbdException {
    try {
      buffers.add(server.buffers().take(length));
    } catch (OutOfMemoryError none) {
      throw new NbdException(NbdError.ENOMEM, "no memory is left for a request");
    }
  }

  /** The seat, if this request has had to take it. */
  Optional<ServerMemory.Seat> seat() {
    return seat;
  }

  /** Gives all back; may be called again. */
  void release() {
    buffers.forEach(server.buffers()::giveBack);
    buffers.clear();
    server.replies().giveBack(replies);
    server.payloads().giveBack(payloads);
    server.countOutside(-(own + seated));
    connection.own().release(own);
    own = 0;
    replies = 0;
    payloads = 0;
    seated = 0;
    seat.ifPresent(ServerMemory.Seat::leave);
    seat = Optional.empty();
  }
}
