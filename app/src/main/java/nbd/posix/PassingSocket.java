package nbd.posix;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import java.io.EOFException;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/**
 * A Unix socket by which two processes send each other messages, and open files with them. Source:
 * SCM_RIGHTS in unix(7), cmsg(3).
 *
 * <p>A message has its length before it, four bytes, big-endian; the files come with these. Used by
 * one platform thread at a time, which waits in the system's calls. Linux only.
 */
public final class PassingSocket implements FilePassing {
  /** The longest message, in bytes. */
  public static final int LONGEST = 1 << 20;

  /** The most files of a message; Linux allows 253. */
  public static final int MOST_FILES = 64;

  private static final int MSG_CMSG_CLOEXEC = 0x4000_0000;
  private static final short POLLIN = 1;
  private static final short POLLOUT = 4;

  private final SocketCalls calls;
  private final Descriptor socket;

  /**
   * Uses a channel's socket, by a descriptor of its own.
   *
   * @throws IOException if the system or the JDK does not let files be passed
   */
  public PassingSocket(SocketChannel channel) throws IOException {
    this(Descriptor.of(channel));
  }

  /** Uses a socket, and owns it from now on. */
  PassingSocket(Descriptor socket) throws IOException {
    calls = SocketCalls.linked();
    this.socket = socket;
  }

  @Override
  public void send(ByteBuffer message, List<Descriptor> files, Duration patience)
      throws IOException {
    if (message.remaining() > LONGEST || files.size() > MOST_FILES) {
      throw new IllegalArgumentException("too long a message");
    }
    long deadline = System.nanoTime() + patience.toNanos();
    ByteBuffer header = ByteBuffer.allocateDirect(Integer.BYTES);
    header.putInt(message.remaining()).flip();
    transfer(true, header, files, deadline);
    ByteBuffer rest = ByteBuffer.allocateDirect(message.remaining());
    transfer(true, rest.put(message.duplicate()).flip(), List.of(), deadline);
  }

  @Override
  public Message receive(Duration patience) throws IOException {
    long deadline = System.nanoTime() + patience.toNanos();
    List<Descriptor> files = new ArrayList<>();
    boolean whole = false;
    try {
      ByteBuffer header = ByteBuffer.allocateDirect(Integer.BYTES);
      transfer(false, header, files, deadline);
      int length = header.flip().getInt();
      if (length < 0 || length > LONGEST) {
        throw new IOException("a message of " + length + " bytes");
      }
      ByteBuffer data = ByteBuffer.allocateDirect(length);
      transfer(false, data, files, deadline);
      whole = true;
      return new Message(data.flip(), files);
    } finally {
      if (!whole) {
        files.forEach(Descriptor::close);
      }
    }
  }

  /**
   * Sends or receives a whole buffer.
   *
   * @param files are sent with the first byte; those that come are added
   */
  private void transfer(boolean sends, ByteBuffer data, List<Descriptor> files, long deadline)
      throws IOException {
    List<Descriptor> with = sends ? files : List.of();
    while (data.hasRemaining()) {
      await(sends ? POLLOUT : POLLIN, deadline);
      long count = sends ? sendSome(data, with) : receiveUnlessReset(data, files);
      if (count == 0) {
        throw new EOFException("the other process is gone");
      }
      if (count > 0) {
        with = List.of();
        data.position(data.position() + (int) count);
      }
    }
  }

  private void await(short events, long deadline) throws IOException {
    long left = deadline - System.nanoTime();
    long ready =
        left <= 0
            ? 0
            : Calls.checked(
                "poll",
                "a Unix socket",
                (arena, state) -> {
                  MemorySegment entry = arena.allocate(8, 8);
                  entry.set(JAVA_INT, 0, socket.number());
                  entry.set(JAVA_SHORT, 4, events);
                  int millis = (int) Math.min(Integer.MAX_VALUE, left / 1_000_000 + 1);
                  return (int) calls.poll.invokeExact(state, entry, 1L, millis);
                });
    if (ready == 0) {
      throw new SocketTimeoutException("the other process does not answer in time");
    }
  }

  private long sendSome(ByteBuffer data, List<Descriptor> files) throws PosixException {
    try (Arena memory = Arena.ofConfined()) {
      MemorySegment message =
          SocketMessage.of(memory, MemorySegment.NULL, MemorySegment.ofBuffer(data), files);
      return calls.send(socket.number(), message, "a Unix socket");
    }
  }

  /** Receives; a process that died with messages unread resets the stream, which is its end. */
  private long receiveUnlessReset(ByteBuffer data, List<Descriptor> files) throws IOException {
    try {
      return receiveSome(data, files);
    } catch (PosixException failure) {
      if (failure.errno() == Errno.ECONNRESET) {
        return 0;
      }
      throw failure;
    }
  }

  private long receiveSome(ByteBuffer data, List<Descriptor> files) throws IOException {
    boolean[] cut = {false};
    long count =
        Calls.tried(
            "recvmsg",
            "a Unix socket",
            (arena, state) -> {
              MemorySegment control = SocketMessage.control(arena, MOST_FILES);
              MemorySegment message =
                  SocketMessage.of(
                      arena, MemorySegment.NULL, MemorySegment.ofBuffer(data), control);
              long received =
                  (long)
                      calls.recvmsg.invokeExact(
                          state,
                          socket.number(),
                          message,
                          SocketCalls.MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
              if (received >= 0) {
                files.addAll(SocketMessage.files(message, control));
                cut[0] = SocketMessage.isCut(message);
              }
              return received;
            });
    if (cut[0]) {
      throw new IOException("files are missing: too few file descriptors (ulimit -n)?");
    }
    return count;
  }

  @Override
  public void close() {
    socket.close();
  }
}
