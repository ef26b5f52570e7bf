package nbd.server;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ReadableByteChannel;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;

/**
 * A socket's input that asks for a moment whether something has arrived before it waits for it.
 *
 * <p>The reason is measured: a virtual thread that waits for a socket is woken by way of another
 * thread, which costs a client with one request in flight half of its requests a second, and one
 * that writes large payloads a third, and more processor time than the asking. It is done only
 * while a processor is to spare, and seldom after it was in vain.
 *
 * <p>Asking puts the socket in non-blocking mode, in which nobody may write to it. So it is done
 * under the lock of those who do, and ends as soon as one of them waits. Used by one thread.
 */
final class PolledInput implements ReadableByteChannel {
  /** What pays: more than a quick client needs for its next request. */
  static final Duration USUAL = Duration.ofNanos(50_000);

  private static final int MOST_SKIPPED = 63;

  /** How long a client that always has something ready may keep a carrier from others. */
  private static final long SLICE_NANOS = 1_000_000;

  private final SocketChannel channel;
  private final ReentrantLock writing;
  private final BooleanSupplier crowded;
  private final long nanos;

  /** After asking in vain, so many reads do not ask; more each time. */
  private int penalty;

  private int toSkip;

  private long yielded = System.nanoTime();

  /**
   * Reads from a socket.
   *
   * @param channel in blocking mode
   * @param writing held by whoever writes to the channel, at least while another thread may read
   * @param crowded whether others may be waiting for a carrier
   * @param patience how long to ask
   */
  PolledInput(
      SocketChannel channel, ReentrantLock writing, BooleanSupplier crowded, Duration patience) {
    this.channel = channel;
    this.writing = writing;
    this.crowded = crowded;
    this.nanos = patience.toNanos();
  }

  @Override
  public int read(ByteBuffer into) throws IOException {
    giveWay();
    int read = 0;
    if (isWorthAsking() && writing.tryLock()) {
      try {
        read = ask(into);
      } finally {
        writing.unlock();
      }
    }
    return read == 0 ? channel.read(into) : read;
  }

  /**
   * Whatever the client sends comes through here, also what needs no reply: the data of options,
   * payloads that are dropped, TLS records without data.
   */
  @SuppressWarnings("ThreadPriorityCheck") // a virtual thread gives its carrier up in no other way
  private void giveWay() {
    if (System.nanoTime() - yielded > SLICE_NANOS) {
      if (crowded.getAsBoolean()) {
        Thread.yield();
      }
      yielded = System.nanoTime();
    }
  }

  private boolean isWorthAsking() {
    if (toSkip > 0) {
      toSkip--;
      return false;
    }
    return !crowded.getAsBoolean();
  }

  /** Zero if nothing came; the lock is held. */
  private int ask(ByteBuffer into) throws IOException {
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
