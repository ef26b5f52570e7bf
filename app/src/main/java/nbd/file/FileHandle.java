package nbd.file;

import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.util.Optional;
import nbd.file.OpenFile.Traits;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.storage.ReadTarget;
import nbd.threads.BlockingCalls;
import nbd.threads.ShortCalls;
import org.tinylog.Logger;

/**
 * One connection's handle on a {@link FileBackend}: the shared opening, the size that the file had
 * when the connection came, and native memory through which the connection's thread asks the page
 * cache.
 */
final class FileHandle extends Handle {
  private static final int ZERO_CHUNK = 1 << 20;

  private final FileBackend backend;
  private final OpenFile file;
  private final BlockingCalls blocking;
  private final Eviction eviction;
  private final OpenFile.CachedReads cached;
  private final Closeable afterClose;

  /** The facts' identity is the opening that all handles of the file share, and a flush syncs. */
  FileHandle(FileBackend backend, long size, boolean readOnly, Closeable afterClose) {
    super(facts(backend, size, readOnly));
    this.backend = backend;
    this.file = backend.file();
    this.blocking = backend.blocking();
    this.eviction = backend.eviction();
    // Evicted data is not cached, and evicting it after a read may wait.
    this.cached = eviction.isOn() ? OpenFile.CachedReads.NONE : file.cachedReads();
    this.afterClose = afterClose;
  }

  private static ExportFacts facts(FileBackend backend, long size, boolean readOnly) {
    Traits traits = backend.file().traits();
    Capabilities writable = capabilities(traits);
    return new ExportFacts(
        size,
        new BlockSizes(1, traits.preferredBlock(), 32 << 20),
        readOnly ? writable.readOnly() : writable,
        "",
        backend);
  }

  private static Capabilities capabilities(Traits traits) {
    Capabilities can =
        Capabilities.of(
            Capability.WRITE,
            Capability.FLUSH,
            Capability.TRIM,
            Capability.ZERO,
            Capability.MULTI_CONN);
    can = traits.durableWrites() ? can.with(Capability.FUA) : can;
    can = traits.extents() ? can.with(Capability.EXTENTS) : can;
    can = traits.fastZero() ? can.with(Capability.FAST_ZERO) : can;
    can = traits.cache() ? can.with(Capability.CACHE) : can;
    return traits.rotational() ? can.with(Capability.ROTATIONAL) : can;
  }

  @Override
  public Outcome perform(Operation operation, Patience patience, Completion end)
      throws IOException {
    try {
      if (patience == Patience.WAIT) {
        perform(operation);
        return Outcome.DONE;
      }
      // At once it does what needs no storage.
      boolean done =
          patience == Patience.AT_ONCE
              && switch (operation.command()) {
                case READ ->
                    operation.isTransfer()
                        ? transferNow(operation.offset(), operation.length(), operation.target())
                        : performHere(operation, blocking.reads());
                case WRITE ->
                    !operation.fua()
                        && !eviction.isOn()
                        && operation.data().isDirect()
                        && performHere(operation, blocking.writes());
                default -> false;
              };
      return done ? Outcome.DONE : Outcome.DECLINED;
    } catch (IOException failure) {
      throw FileBackend.withProtocolError(failure);
    }
  }

  @Override
  public Optional<Prefetch> prefetch() {
    return file.traits().cache() && !eviction.isOn() ? Optional.of(this::fetch) : Optional.empty();
  }

  private void fetch(long offset, long length) {
    try {
      file.readAhead(offset, length);
    } catch (IOException failure) {
      Logger.debug("{}: not read ahead: {}", backend.name(), failure.getMessage());
    }
  }

  /** Reads or writes on this thread if that is expected to be short. */
  private boolean performHere(Operation operation, ShortCalls calls) throws IOException {
    int begun = calls.begin();
    if (begun == ShortCalls.REFUSED) {
      return false;
    }
    try {
      if (operation.command() == Command.READ) {
        return cached.read(operation.data(), operation.offset());
      }
      file.write(operation.data(), operation.offset());
      return true;
    } finally {
      calls.end(begun);
    }
  }

  private void perform(Operation operation) throws IOException {
    long offset = operation.offset();
    long length = operation.length();
    switch (operation.command()) {
      case READ -> blocking.run(() -> readWaiting(operation.data(), offset));
      case WRITE -> writeWaiting(operation);
      case FLUSH -> backend.flush();
      case TRIM -> {
        blocking.run(() -> file.discard(offset, length));
        flushIfFua(operation);
      }
      case WRITE_ZEROES -> {
        blocking.run(() -> clear(offset, length, operation.flags()));
        flushIfFua(operation);
      }
      case CACHE -> blocking.run(() -> file.readAhead(offset, length));
      case BLOCK_STATUS -> {
        FileExtents extents = new FileExtents(file, size());
        blocking.run(() -> operation.answer(extents.of(offset, length, operation.most())));
      }
      default -> throw new AssertionError(operation.command());
    }
  }

  private void readWaiting(ByteBuffer into, long offset) throws IOException {
    int length = into.remaining();
    if (into.isDirect()) {
      readFully(into, offset);
    } else {
      ByteBuffer direct = ByteBuffer.allocateDirect(length);
      readFully(direct, offset);
      into.put(direct.flip());
    }
    eviction.noteClean(offset, length);
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
        "was truncated to %d bytes while it was served with %d".formatted(file.size(), size());
    return new NbdException(NbdError.EIO, backend.name() + " " + what, "the file " + what);
  }

  private boolean transferNow(long offset, long length, ReadTarget to) throws IOException {
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
    ShortCalls here = blocking.reads();
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

  /**
   * Transfers as {@link OpenFile.CachedReads#transfer} does; returns 0 also if that may not be
   * short.
   */
  private long transfer(long offset, long length, WritableByteChannel target) throws IOException {
    ShortCalls here = blocking.reads();
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

  private void writeWaiting(Operation operation) throws IOException {
    ByteBuffer from = operation.data();
    long offset = operation.offset();
    int length = from.remaining();
    ByteBuffer data = from.isDirect() ? from : ByteBuffer.allocateDirect(length).put(from).flip();
    if (operation.fua()) {
      backend.writeDurably(data, offset);
      if (eviction.isOn()) {
        blocking.run(() -> eviction.noteClean(offset, length));
      }
    } else {
      blocking.run(() -> writeHere(data, offset));
    }
  }

  /** Writes on this thread, which may wait. */
  private void writeHere(ByteBuffer data, long offset) throws IOException {
    int length = data.remaining();
    file.write(data, offset);
    eviction.wrote(offset, length);
  }

  private void clear(long offset, long length, CommandFlags flags) throws IOException {
    boolean mustBeFast = flags.has(CommandFlag.FAST_ZERO);
    if (!file.zero(offset, length, !flags.has(CommandFlag.NO_HOLE), mustBeFast)) {
      if (mustBeFast) {
        throw new NbdException(
            NbdError.ENOTSUP, "the file cannot be zeroed faster than by writing");
      }
      writeZeroes(offset, length);
    }
  }

  /** Flushes the whole file, since a change by fallocate cannot be made durable alone. */
  private void flushIfFua(Operation operation) throws IOException {
    if (operation.fua()) {
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
  public void close() throws IOException {
    afterClose.close();
  }
}
