package nbd.backend;

import java.io.EOFException;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.WritableByteChannel;
import java.util.Optional;
import nbd.posix.PosixException;
import nbd.posix.PosixFile;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;

/**
 * One connection's handle on a {@link FileBackend}: the shared opening, and the few bytes of native
 * memory through which the connection's own thread asks for what is cached.
 */
final class FileHandle implements Handle {
  private static final int ZERO_CHUNK = 1 << 20;

  private static final Capabilities WRITABLE =
      Capabilities.of(
          Fua.EMULATE,
          Capability.WRITE,
          Capability.FLUSH,
          Capability.TRIM,
          Capability.ZERO,
          Capability.MULTI_CONN);

  private final FileBackend file;
  private final FileChannel channel;
  private final Optional<PosixFile> posix;
  private final long size;
  private final Capabilities capabilities;
  private final PosixFile.Query query = new PosixFile.Query(Arena.ofAuto());
  private final BufferAddress buffer = new BufferAddress();

  FileHandle(FileBackend file, long size, boolean readOnly) {
    this.file = file;
    this.channel = file.channel();
    this.posix = file.posix();
    this.size = size;
    this.capabilities = readOnly ? WRITABLE.readOnly() : WRITABLE;
  }

  @Override
  public long size() {
    return size;
  }

  @Override
  public Capabilities capabilities() {
    return capabilities;
  }

  @Override
  public void read(ByteBuffer into, long offset) throws IOException {
    file.blocking()
        .run(
            () -> {
              long at = offset;
              while (into.hasRemaining()) {
                int count = channel.read(into, at);
                if (count < 0) {
                  throw truncated();
                }
                at += count;
              }
            });
  }

  private EOFException truncated() throws IOException {
    return new EOFException(
        "%s was truncated to %d bytes while it was served with %d"
            .formatted(file.name(), channel.size(), size));
  }

  @Override
  public boolean readNow(ByteBuffer into, long offset) {
    if (posix.isEmpty()) {
      return false;
    }
    int length = into.remaining();
    long address = buffer.of(into);
    if (posix.get().readCached(query, address, length, offset) != length) {
      return false;
    }
    into.position(into.limit());
    return true;
  }

  @Override
  public boolean transferNow(long offset, long length, ReadTarget to) throws IOException {
    if (posix.isEmpty() || !posix.get().isCached(query, offset, length)) {
      return false;
    }
    WritableByteChannel target = to.begin();
    long done = 0;
    while (done < length) {
      long count = channel.transferTo(offset + done, length - done, target);
      if (count <= 0) {
        count = copy(offset + done, length - done, to.piece(), target);
      }
      to.sent(count);
      done += count;
    }
    return true;
  }

  /** Sends a piece by copying it, which waits until the client takes it. */
  private int copy(long offset, long length, ByteBuffer piece, WritableByteChannel target)
      throws IOException {
    piece.clear().limit((int) Math.min(length, piece.capacity()));
    read(piece, offset);
    piece.flip();
    int count = piece.remaining();
    while (piece.hasRemaining()) {
      target.write(piece);
    }
    return count;
  }

  @Override
  public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    file.blocking().run(() -> writeHere(from, offset));
  }

  @Override
  public boolean writeNow(ByteBuffer from, long offset) throws IOException {
    long begin = System.nanoTime();
    if (file.slowWrites().expected(begin)) {
      return false;
    }
    int length = from.remaining();
    if (posix.isPresent()
        && posix.get().write(MemorySegment.ofBuffer(from).address(), length, offset) == length) {
      from.position(from.limit());
    } else {
      writeHere(from, offset);
    }
    file.slowWrites().wrote(begin, System.nanoTime());
    return true;
  }

  /** Writes on this thread, which may have to wait. */
  private void writeHere(ByteBuffer from, long offset) throws IOException {
    if (posix.isPresent()) {
      try {
        posix.get().writeFully(from, offset);
      } catch (PosixException failure) {
        throw FileBackend.withProtocolError(failure);
      }
      return;
    }
    long at = offset;
    while (from.hasRemaining()) {
      at += channel.write(from, at);
    }
  }

  @Override
  public void flush() throws IOException {
    file.flush();
  }

  @Override
  public void trim(long offset, long length, CommandFlags flags) throws IOException {
    if (posix.isPresent()) {
      // A hint: where the file system cannot, the data stays.
      allocate(() -> posix.get().punchHole(offset, length));
    }
  }

  @Override
  public void zero(long offset, long length, CommandFlags flags) throws IOException {
    boolean mayPunch = !flags.has(CommandFlag.NO_HOLE);
    if (mayPunch && posix.isPresent() && allocate(() -> posix.get().punchHole(offset, length))) {
      return;
    }
    if (posix.isPresent() && allocate(() -> posix.get().zeroRange(offset, length))) {
      return;
    }
    file.blocking().run(() -> writeZeroes(offset, length));
  }

  /** Makes the call where it may wait, and says whether the file system has it. */
  private boolean allocate(BlockingCalls.Call call) throws IOException {
    try {
      file.blocking().run(call);
      return true;
    } catch (PosixException failure) {
      if (failure.errno() == PosixFile.EOPNOTSUPP) {
        return false;
      }
      throw FileBackend.withProtocolError(failure);
    }
  }

  private void writeZeroes(long offset, long length) throws IOException {
    ByteBuffer zeroes = ByteBuffer.allocateDirect((int) Math.min(length, ZERO_CHUNK));
    long done = 0;
    while (done < length) {
      zeroes.clear().limit((int) Math.min(zeroes.capacity(), length - done));
      int count = zeroes.remaining();
      writeHere(zeroes, offset + done);
      done += count;
    }
  }

  @Override
  public void cache(long offset, long length) {
    throw new UnsupportedOperationException("cache");
  }

  @Override
  public void close() {
    // What was opened is the backend's.
  }

  /**
   * The native address of direct buffers, remembered for the last one: the connection's thread
   * comes with the same few again and again.
   */
  private static final class BufferAddress {
    private ByteBuffer last = ByteBuffer.allocateDirect(0);
    private long base;

    @SuppressWarnings("ReferenceEquality") // it is the memory that matters, not the contents
    private boolean isSame(ByteBuffer direct) {
      return last == direct;
    }

    /** The address of the buffer's position. */
    long of(ByteBuffer direct) {
      if (!isSame(direct)) {
        base = MemorySegment.ofBuffer(direct).address() - direct.position();
        last = direct;
      }
      return base + direct.position();
    }
  }
}
