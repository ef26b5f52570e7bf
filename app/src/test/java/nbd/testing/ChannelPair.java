package nbd.testing;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousCloseException;
import java.nio.channels.ByteChannel;
import java.nio.channels.ClosedChannelException;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/** Two ends of a connection in memory: what is written to one is read from the other. */
public final class ChannelPair {
  private final Direction there;
  private final Direction back;

  /**
   * Makes a connection.
   *
   * @param capacity the bytes that each direction holds before a writer has to wait
   * @param most the most bytes that one call moves
   */
  public ChannelPair(int capacity, int most) {
    there = new Direction(capacity, most);
    back = new Direction(capacity, most);
  }

  public ByteChannel left() {
    return new End(back, there);
  }

  public ByteChannel right() {
    return new End(there, back);
  }

  /** Says whether a writer at the left end waits until the right end reads. */
  public boolean leftWaitsToWrite() {
    return there.isWriterWaiting();
  }

  /** Returns the bytes that the left end has written and the right end has not read. */
  public byte[] onTheWayToRight() {
    return there.content();
  }

  /** Changes the last byte that the left end has written. */
  public void damageLastByteToRight() {
    there.damageLast();
  }

  /** Drops so many of the last bytes that the left end has written. */
  public void cutToRight(int count) {
    there.cut(count);
  }

  private record End(Direction in, Direction out) implements ByteChannel {
    @Override
    public int read(ByteBuffer into) throws IOException {
      return in.read(into);
    }

    @Override
    public int write(ByteBuffer from) throws IOException {
      return out.write(from);
    }

    @Override
    public boolean isOpen() {
      return !out.isClosed();
    }

    @Override
    public void close() {
      out.endInput();
      in.abandon();
    }
  }

  /** One direction's bytes, in a ring; everything is guarded by the lock. */
  private static final class Direction {
    private final ReentrantLock lock = new ReentrantLock();
    private final Condition changed = lock.newCondition();
    private final byte[] ring;
    private final int most;
    private long written;
    private long read;
    private boolean ended;
    private boolean abandoned;
    private int waitingWriters;

    Direction(int capacity, int most) {
      this.ring = new byte[capacity];
      this.most = most;
    }

    int read(ByteBuffer into) throws IOException {
      lock.lock();
      try {
        while (written == read && !ended && !abandoned) {
          changed.awaitUninterruptibly();
        }
        if (abandoned) {
          throw new AsynchronousCloseException();
        }
        if (written == read) {
          return -1;
        }
        int count = (int) Math.min(Math.min(most, into.remaining()), written - read);
        for (int i = 0; i < count; i++) {
          into.put(ring[(int) (read++ % ring.length)]);
        }
        changed.signalAll();
        return count;
      } finally {
        lock.unlock();
      }
    }

    int write(ByteBuffer from) throws IOException {
      lock.lock();
      try {
        waitingWriters++;
        while (written - read == ring.length && !ended && !abandoned) {
          changed.awaitUninterruptibly();
        }
        waitingWriters--;
        if (ended) {
          throw new ClosedChannelException();
        }
        if (abandoned) {
          throw new IOException("Broken pipe");
        }
        int count =
            (int) Math.min(Math.min(most, from.remaining()), ring.length - (written - read));
        for (int i = 0; i < count; i++) {
          ring[(int) (written++ % ring.length)] = from.get();
        }
        changed.signalAll();
        return count;
      } finally {
        lock.unlock();
      }
    }

    boolean isWriterWaiting() {
      lock.lock();
      try {
        return waitingWriters > 0 && written - read == ring.length;
      } finally {
        lock.unlock();
      }
    }

    byte[] content() {
      lock.lock();
      try {
        byte[] content = new byte[(int) (written - read)];
        for (int i = 0; i < content.length; i++) {
          content[i] = ring[(int) ((read + i) % ring.length)];
        }
        return content;
      } finally {
        lock.unlock();
      }
    }

    void damageLast() {
      lock.lock();
      try {
        ring[(int) ((written - 1) % ring.length)] ^= 1;
      } finally {
        lock.unlock();
      }
    }

    void cut(int count) {
      lock.lock();
      try {
        written -= count;
      } finally {
        lock.unlock();
      }
    }

    void endInput() {
      lock.lock();
      try {
        ended = true;
        changed.signalAll();
      } finally {
        lock.unlock();
      }
    }

    void abandon() {
      lock.lock();
      try {
        abandoned = true;
        changed.signalAll();
      } finally {
        lock.unlock();
      }
    }

    boolean isClosed() {
      lock.lock();
      try {
        return ended;
      } finally {
        lock.unlock();
      }
    }
  }
}
