package nbd.threads;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ReadableByteChannel;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.concurrent.locks.ReentrantLock;

/**
 * A socket's input that polls for a moment before it waits.
 *
 * <p>Measured: a virtual thread that waits for a socket is woken by way of another thread, which
 * costs a client with one request in flight half of its requests a second, one that writes large
 * payloads a third, and more processor time than polling. It polls only while a processor is to
 * spare, and seldom after it polled in vain.
 *
 * <p>Polling puts the socket in non-blocking mode, in which nobody may write to it. So the writers'
 * lock is held meanwhile, and polling ends as soon as a writer waits for it. Used by one thread.
 */
public final class PolledInput implements ReadableByteChannel {
  /** Longer than a quick client takes to send its next request. */
  public static final Duration USUAL = Duration.ofNanos(50_000);

  private static final int MOST_SKIPPED = 63;

  private final SocketChannel channel;
  private final ReentrantLock writing;
  private final TimeSlice slice;
  private final long nanos;

  /** Reads that do not poll after the last one that polled in vain; more each time. */
  private int penalty;

  private int toSkip;

  /**
   * Reads from a socket.
   *
   * @param channel in blocking mode
   * @param writing held by whoever writes to the channel, at least while another thread may read
   * @param slice the connection's
   * @param patience how long to poll
   */
  public PolledInput(
      SocketChannel channel, ReentrantLock writing, TimeSlice slice, Duration patience) {
    this.channel = channel;
    this.writing = writing;
    this.slice = slice;
    this.nanos = patience.toNanos();
  }

  @Override
  public int read(ByteBuffer into) throws IOException {
    slice.beforeRead();
    int read = 0;
    if (isPollDue() && writing.tryLock()) {
      try {
        read = poll(into);
      } finally {
        writing.unlock();
      }
    }
    return read == 0 ? channel.read(into) : read;
  }

  private boolean isPollDue() {
    if (toSkip > 0) {
      toSkip--;
      return false;
    }
    return !slice.isCrowded();
  }

  /** Polls, with the lock held; zero if nothing came. */
  private int poll(ByteBuffer into) throws IOException {
    long began = System.nanoTime();
    channel.configureBlocking(false);
    try {
      do {
        int read = channel.read(into);
        if (read != 0) {
          penalty = 0;
          return read;
        }
        Thread.onSpinWait();
      } while (System.nanoTime() - began < nanos && !writing.hasQueuedThreads());
    } finally {
      channel.configureBlocking(true);
    }
    penalty = Math.min(2 * penalty + 1, MOST_SKIPPED);
    toSkip = penalty;
    return 0;
  }

  @Override
  public boolean isOpen() {
    return channel.isOpen();
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
