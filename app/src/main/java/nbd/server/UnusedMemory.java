package nbd.server;

import nbd.posix.NativeHeap;
import nbd.storage.BufferPool;

/**
 * The memory that the start or a burst of connections has left behind: buffers that nobody needs,
 * garbage, and what the C library has been given back. It goes back to the system once the burst is
 * over, since a full collection stops all threads for a moment. Used by one thread.
 */
final class UnusedMemory {
  private static final long MANY_BYTES = 16 << 20;
  private static final long MANY_CONNECTIONS = 1000;

  private final BufferPool buffers;
  private final Runnable collect;
  private final Runnable trim;

  /** True until the start's memory has been given back. */
  private boolean starting = true;

  private boolean collected;
  private long endedBefore;
  private long endedAtCollection;
  private long dropped;

  UnusedMemory(BufferPool buffers) {
    this(buffers, System::gc, NativeHeap::trim);
  }

  /** Makes one for a test, which gives the memory back by other means. */
  UnusedMemory(BufferPool buffers, Runnable collect, Runnable trim) {
    this.buffers = buffers;
    this.collect = collect;
    this.trim = trim;
  }

  /**
   * Gives the memory back if that is worth a collection and no connection has ended since the last
   * call. Called every few seconds.
   *
   * @param ended the number of connections that have ended so far
   */
  void look(long ended) {
    if (collected) {
      // A thread of the JVM frees collected buffers some time after the collection.
      collected = false;
      trim.run();
    }
    dropped += buffers.dropUnneeded();
    boolean quiet = ended == endedBefore;
    endedBefore = ended;
    boolean worth =
        starting || dropped >= MANY_BYTES || ended - endedAtCollection >= MANY_CONNECTIONS;
    if (quiet && worth) {
      starting = false;
      dropped = 0;
      endedAtCollection = ended;
      collect.run();
      collected = true;
    }
  }
}
