package nbd.file;

import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.util.List;
import java.util.Optional;
import nbd.file.OpenFile.Traits;
import nbd.protocol.BlockSizes;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Extent;
import nbd.storage.Fua;
import nbd.storage.Handle;
import nbd.storage.ReadTarget;
import nbd.threads.BlockingCalls;
import nbd.threads.ShortCalls;

/**
 * One connection's handle on a {@link FileBackend}: the shared opening, the size that it had when
 * the connection came, and the few bytes of native memory through which the connection's own thread
 * asks for what is cached.
 */
final class FileHandle implements Handle {
  private static final int ZERO_CHUNK = 1 << 20;

  private final FileBackend backend;
  private final OpenFile file;
  private final Optional<Eviction> eviction;
  private final long size;
  private final Capabilities capabilities;
  private final BlockSizes blockSizes;
  private final OpenFile.CachedReads cached;
  private final Closeable afterClose;

  FileHandle(FileBackend backend, long size, boolean readOnly, Closeable afterClose) {
    this.backend = backend;
    this.file = backend.file();
    this.eviction = backend.eviction();
    this.size = size;
    Capabilities writable = capabilities(file.traits());
    this.capabilities = readOnly ? writable.readOnly() : writable;
    this.blockSizes = new BlockSizes(1, file.traits().preferredBlock(), 32 << 20);
    // What is not to stay in the cache is not expected there, and dropping it may wait.
    this.cached = eviction.isEmpty() ? file.cachedReads() : OpenFile.CachedReads.NONE;
    this.afterClose = afterClose;
  }

  private static Capabilities capabilities(Traits traits) {
    Capabilities can =
        Capabilities.of(
            traits.durableWrites() ? Fua.NATIVE : Fua.EMULATE,
            Capability.WRITE,
            Capability.FLUSH,
            Capability.TRIM,
            Capability.ZERO,
            Capability.MULTI_CONN);
    can = traits.extents() ? can.with(Capability.EXTENTS) : can;
    can = traits.fastZero() ? can.with(Capability.FAST_ZERO) : can;
    can = traits.cache() ? can.with(Capability.CACHE) : can;
    return traits.rotational() ? can.with(Capability.ROTATIONAL) : can;
  }

  @Override
  public long size() {
    return size;
  }

  @Override
  public BlockSizes blockSizes() {
    return blockSizes;
  }

  @Override
  public Capabilities capabilities() {
    return capabilities;
  }

  /** The opening that all handles of the file share, and that a flush syncs. */
  @Override
  public Object identity() {
    return backend;
  }

  @Override
  public void read(ByteBuffer into, long offset) throws IOException {
    backend
        .blocking()
        .run(
            () -> {
              int length = into.remaining();
              if (into.isDirect()) {
                readFully(into, offset);
              } else {
                ByteBuffer direct = ByteBuffer.allocateDirect(length);
                readFully(direct, offset);
                into.put(direct.flip());
              }
              if (eviction.isPresent()) {
                eviction.get().noteClean(offset, length);
              }
            });
  }

  private void readFully(ByteBuffer into, long offset) throws IOException {
    long at = offset;
    while (into.hasRemaining()) {
      int count = file.read(into, at);
      if (count == 0) {
        throw truncated();
      }
      at += count;
    }
  }

  private NbdException truncated() throws IOException {
    String what =
        "was truncated to %d bytes while it was served with %d".formatted(file.size(), size);
    return new NbdException(NbdError.EIO, backend.name() + " " + what, "the file " + what);
  }

  @Override
  public boolean readNow(ByteBuffer into, long offset) {
    ShortCalls here = backend.blocking().reads();
    int begun = here.begin();
    if (begun == ShortCalls.REFUSED) {
      return false;
    }
    try {
      return cached.read(into, offset);
    } finally {
      here.end(begun);
    }
  }

  @Override
  public boolean transferNow(long offset, long length, ReadTarget to) throws IOException {
    if (!isCached(offset, length)) {
      return false;
    }
    WritableByteChannel target = to.begin();
    long done = 0;
    while (done < length) {
      long count = transfer(offset + done, length - done, target);
      if (count > 0) {
        to.sent(count);
      } else {
        count = copy(offset + done, length - done, to);
      }
      done += count;
    }
    return true;
  }

  private boolean isCached(long offset, long length) {
    ShortCalls here = backend.blocking().reads();
    int begun = here.begin();
    if (begun == ShortCalls.REFUSED) {
      return false;
    }
    try {
      return cached.has(offset, length);
    } finally {
      here.end(begun);
    }
  }

  /** As {@link OpenFile.CachedReads#transfer}; nothing if it is not for this thread. */
  private long transfer(long offset, long length, WritableByteChannel target) throws IOException {
    ShortCalls here = backend.blocking().reads();
    int begun = here.begin();
    if (begun == ShortCalls.REFUSED) {
      return 0;
    }
    try {
      return cached.transfer(offset, length, target);
    } finally {
      here.end(begun);
    }
  }

  /** Sends a piece by copying it, which waits until the client takes it. */
  private int copy(long offset, long length, ReadTarget to) throws IOException {
    ByteBuffer piece = to.piece();
    int count = (int) Math.min(length, piece.capacity());
    read(piece.clear().limit(count), offset);
    to.write(piece.flip());
    return count;
  }

  @Override
  public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    int length = from.remaining();
    ByteBuffer data = from.isDirect() ? from : ByteBuffer.allocateDirect(length).put(from).flip();
    try {
      if (flags.has(CommandFlag.FUA)) {
        backend.writeDurably(data, offset);
        if (eviction.isPresent()) {
          backend.blocking().run(() -> eviction.get().noteClean(offset, length));
        }
      } else {
        backend.blocking().run(() -> writeHere(data, offset));
      }
    } catch (IOException failure) {
      throw FileBackend.withProtocolError(failure);
    }
  }

  @Override
  public boolean writeNow(ByteBuffer from, long offset) throws IOException {
    if (eviction.isPresent() || !from.isDirect()) {
      return false;
    }
    ShortCalls here = backend.blocking().writes();
    int begun = here.begin();
    if (begun == ShortCalls.REFUSED) {
      return false;
    }
    try {
      file.write(from, offset);
      return true;
    } catch (IOException failure) {
      throw FileBackend.withProtocolError(failure);
    } finally {
      here.end(begun);
    }
  }

  @Override
  public boolean fuaIsQuick() {
    return eviction.isEmpty() && backend.blocking().areDurableWritesQuick();
  }

  /** Writes on this thread, which may have to wait. */
  private void writeHere(ByteBuffer data, long offset) throws IOException {
    int length = data.remaining();
    file.write(data, offset);
    if (eviction.isPresent()) {
      eviction.get().wrote(offset, length);
    }
  }

  @Override
  public void flush() throws IOException {
    backend.flush();
  }

  @Override
  public void trim(long offset, long length, CommandFlags flags) throws IOException {
    allocate(() -> file.discard(offset, length));
    flushIfFua(flags);
  }

  @Override
  public void zero(long offset, long length, CommandFlags flags) throws IOException {
    boolean mayPunch = !flags.has(CommandFlag.NO_HOLE);
    boolean mustBeFast = flags.has(CommandFlag.FAST_ZERO);
    allocate(
        () -> {
          if (!file.zero(offset, length, mayPunch, mustBeFast)) {
            if (mustBeFast) {
              throw new NbdException(
                  NbdError.ENOTSUP, "the file cannot be zeroed faster than by writing");
            }
            writeZeroes(offset, length);
          }
        });
    flushIfFua(flags);
  }

  private void allocate(BlockingCalls.Call call) throws IOException {
    try {
      backend.blocking().run(call);
    } catch (IOException failure) {
      throw FileBackend.withProtocolError(failure);
    }
  }

  /** What fallocate changed cannot be made durable alone: all of the file is. */
  private void flushIfFua(CommandFlags flags) throws IOException {
    if (flags.has(CommandFlag.FUA)) {
      backend.flush();
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
  public void cache(long offset, long length) throws IOException {
    backend.blocking().run(() -> file.readAhead(offset, length));
  }

  @Override
  public List<Extent> extents(long offset, long length, int most) throws IOException {
    FileExtents extents = new FileExtents(file, size);
    List<List<Extent>> found = new java.util.ArrayList<>(1);
    backend.blocking().run(() -> found.add(extents.of(offset, length, most)));
    return found.getFirst();
  }

  @Override
  public void close() throws IOException {
    // What was opened is the backend's.
    afterClose.close();
  }
}
