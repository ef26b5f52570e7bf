package nbd.posix;

import static java.lang.foreign.ValueLayout.JAVA_INT;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.lang.ref.Reference;
import java.nio.ByteBuffer;

/**
 * A pipe that holds the data of one request. Between a pipe and a socket data moves by splice(2),
 * which copies nothing: the pipe refers to the pages of the packets (see {@link SpliceSocket}).
 * Used by one thread at a time.
 *
 * <p>The number of pieces in a pipe is limited, each a page or a part of a packet. So the number of
 * bytes that fit depends on the packets that they came in. An empty pipe always has room for {@link
 * #MOST_BYTES} that are {@link #put} at once.
 */
public final class Pipe {
  /** The longest data: half of the pages, since the pieces of packets are often shorter. */
  public static final int MOST_BYTES = 512 << 10;

  /** As much as the system allows without privileges (fs.pipe-max-size): 256 pieces. */
  private static final int CAPACITY = 2 * MOST_BYTES;

  private static final int O_CLOEXEC = 0x80000;
  private static final int O_NONBLOCK = 0x800;
  private static final int F_SETPIPE_SZ = 1031;

  final int source;
  final int sink;
  private final Calls calls;
  private long held;

  private Pipe(Calls calls, int source, int sink) {
    this.calls = calls;
    this.source = source;
    this.sink = sink;
  }

  /**
   * Opens an empty pipe.
   *
   * @throws PosixException if the system has none of this size
   */
  static Pipe open(Calls calls) throws PosixException {
    long ends =
        Calls.checked(
            "pipe2",
            "a pipe",
            (arena, state) -> {
              MemorySegment pair = arena.allocate(2 * Integer.BYTES, Integer.BYTES);
              int result = (int) calls.pipe2.invokeExact(state, pair, O_CLOEXEC | O_NONBLOCK);
              return result < 0
                  ? result
                  : (long) pair.getAtIndex(JAVA_INT, 0) << 32 | pair.getAtIndex(JAVA_INT, 1);
            });
    Pipe pipe = new Pipe(calls, (int) (ends >> 32), (int) ends);
    boolean sized = false;
    try {
      Calls.checked(
          "fcntl",
          "a pipe",
          (_, state) ->
              (int)
                  calls.fcntl.invokeExact(
                      state, pipe.sink, F_SETPIPE_SZ, MemorySegment.ofAddress(CAPACITY)));
      sized = true;
      return pipe;
    } finally {
      if (!sized) {
        pipe.close();
      }
    }
  }

  /** Returns the number of bytes that it holds. */
  public long held() {
    return held;
  }

  /** Counts bytes that came, or left. */
  void moved(long bytes) {
    held += bytes;
  }

  /**
   * Copies as much of a direct buffer as there is room for.
   *
   * @return the number of bytes
   */
  public int put(ByteBuffer from) throws IOException {
    int count = copied("write", "a pipe", calls.write, sink, from);
    held += count;
    return count;
  }

  /**
   * Copies to a direct buffer until it is full or the pipe empty.
   *
   * @return the number of bytes
   */
  public int take(ByteBuffer into) throws IOException {
    int taken = 0;
    while (held > 0 && into.hasRemaining()) {
      int count = copied("read", "a pipe", calls.read, source, into);
      if (count == 0) {
        throw new IllegalStateException("a pipe holds fewer bytes than it was given");
      }
      held -= count;
      taken += count;
    }
    return taken;
  }

  /** Copies between a direct buffer and a descriptor, without waiting; returns the bytes. */
  private static int copied(String name, String file, MethodHandle call, int fd, ByteBuffer buffer)
      throws IOException {
    if (!buffer.hasRemaining()) {
      return 0;
    }
    try {
      long address = MemorySegment.ofBuffer(buffer).address();
      long most = buffer.remaining();
      long count =
          Math.max(
              0,
              Calls.tried(
                  name, file, (_, state) -> (long) call.invokeExact(state, fd, address, most)));
      buffer.position(buffer.position() + (int) count);
      return (int) count;
    } finally {
      Reference.reachabilityFence(buffer);
    }
  }

  /** Drops what it holds. */
  void close() {
    try {
      int _ = (int) calls.close.invokeExact(source);
      int _ = (int) calls.close.invokeExact(sink);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }
}
