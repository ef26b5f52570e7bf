package nbd.filter;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.locks.ReentrantLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import nbd.backend.Capabilities;
import nbd.backend.Capability;
import nbd.backend.Extent;
import nbd.backend.Fua;
import nbd.backend.Handle;
import nbd.backend.LostException;
import nbd.filter.KeptWrites.Again;
import nbd.filter.KeptWrites.Owner;
import nbd.filter.KeptWrites.Range;
import nbd.protocol.BlockSizes;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * A handle that outlives those below it: when one breaks, it opens another one, writes again what
 * was not flushed, and then does what was going on.
 *
 * <p>Every call holds the read lock until what it wrote is kept; who replaces the handle holds the
 * write lock, so that nothing is going on then, and whatever was answered is kept.
 */
final class ReconnectHandle implements Handle {
  private static final Duration FIRST_PAUSE = Duration.ofMillis(50);
  private static final Duration LONGEST_PAUSE = Duration.ofSeconds(1);

  /** Opens a new handle. */
  @FunctionalInterface
  interface Opening {
    Handle open() throws IOException;
  }

  private final String name;
  private final Opening opening;
  private final Duration within;
  private final KeptWrites kept;
  private final Runnable afterClose;
  private final Owner owner;
  private final Capabilities capabilities;
  private final boolean keeps;

  private final ReentrantLock makingRoom = new ReentrantLock();

  private final ReentrantReadWriteLock lock = new ReentrantReadWriteLock();

  /** Guarded by the lock. */
  private Handle current;

  /** How often it was replaced; guarded by the lock. */
  private long replaced;

  /** Why there is no handle any more; guarded by the lock. */
  private @Nullable LostException gone;

  /**
   * Continues a handle.
   *
   * @param name of the backend, for messages
   * @param first the handle to begin with
   * @param within how long to try to get another one
   * @param kept shared by all handles of the export
   * @param bytes how much this handle keeps there
   * @param afterClose run when it is closed
   */
  ReconnectHandle(
      String name,
      Handle first,
      Opening opening,
      Duration within,
      KeptWrites kept,
      long bytes,
      Runnable afterClose) {
    this.name = name;
    this.current = first;
    this.opening = opening;
    this.within = within;
    this.kept = kept;
    this.afterClose = afterClose;
    this.owner = new Owner(bytes);
    this.capabilities = shown(first.capabilities());
    // What cannot be flushed is never covered by anything; its storage promises no more than that.
    this.keeps = first.capabilities().has(Capability.FLUSH);
  }

  /**
   * A flush of one handle cannot cover what another one has yet to write again; what was forced out
   * alone could be replaced by what was written before, when that is written again.
   */
  private static Capabilities shown(Capabilities below) {
    Capabilities shown = below.without(Capability.MULTI_CONN).without(Capability.FAST_ZERO);
    return below.fua() == Fua.NATIVE && below.has(Capability.FLUSH)
        ? shown.with(Fua.EMULATE)
        : shown;
  }

  @Override
  public long size() {
    return handle().size();
  }

  @Override
  public BlockSizes blockSizes() {
    return handle().blockSizes();
  }

  @Override
  public String description() {
    return handle().description();
  }

  @Override
  public Capabilities capabilities() {
    return capabilities;
  }

  private Handle handle() {
    lock.readLock().lock();
    try {
      return current;
    } finally {
      lock.readLock().unlock();
    }
  }

  /** A call on the handle of the moment, which may be made again on the next one. */
  @FunctionalInterface
  private interface Call {
    void on(Handle handle) throws IOException;
  }

  private void run(Call call) throws IOException {
    while (true) {
      long used = -1;
      LostException broken;
      lock.readLock().lock();
      try {
        if (gone != null) {
          throw new LostException(NbdError.ESHUTDOWN, String.valueOf(gone.getMessage()));
        }
        used = replaced;
        call.on(current);
        return;
      } catch (LostException failure) {
        if (used < 0) {
          throw failure;
        }
        broken = failure;
      } finally {
        lock.readLock().unlock();
      }
      replace(used, broken);
    }
  }

  /** Puts another handle in the place of the broken one, unless somebody else has. */
  private void replace(long used, LostException why) throws LostException {
    lock.writeLock().lock();
    try {
      if (replaced != used || gone != null) {
        return;
      }
      Logger.warn("{}: connecting again, since {}", name, why.getMessage());
      long began = System.nanoTime();
      Handle broken = current;
      current = reopen(broken, why, began);
      replaced++;
      Logger.info("{}: connected again after {} ms", name, (System.nanoTime() - began) / 1_000_000);
      close(broken);
    } catch (LostException failure) {
      gone = failure;
      kept.drop(owner, Long.MAX_VALUE);
      throw failure;
    } finally {
      lock.writeLock().unlock();
    }
  }

  private Handle reopen(Handle broken, LostException why, long began) throws LostException {
    Duration pause = FIRST_PAUSE;
    while (true) {
      IOException last;
      try {
        Handle made = opening.open();
        try {
          checkAlike(broken, made);
          writeAgain(made);
          return made;
        } catch (IOException | RuntimeException failure) {
          close(made);
          throw failure;
        }
      } catch (ChangedException changed) {
        throw new LostException(NbdError.EIO, why.getMessage() + "; " + changed.getMessage());
      } catch (IOException failure) {
        last = failure;
      }
      Duration left = within.minusNanos(System.nanoTime() - began);
      if (!left.isPositive()) {
        throw new LostException(
            NbdError.EIO,
            "%s; connecting again failed for %d s, at last: %s"
                .formatted(why.getMessage(), within.toSeconds(), last.getMessage()));
      }
      Logger.debug("{}: connecting again: {}", name, last.getMessage());
      sleep(shorter(pause, left));
      pause = shorter(pause.multipliedBy(2), LONGEST_PAUSE);
    }
  }

  /** It makes no sense to go on with what is there now. */
  private static final class ChangedException extends IOException {
    private static final long serialVersionUID = 1;

    ChangedException(String message) {
      super(message);
    }
  }

  private static void checkAlike(Handle before, Handle now) throws ChangedException {
    if (before.size() != now.size()) {
      throw new ChangedException(
          "it came back with %d bytes instead of %d".formatted(now.size(), before.size()));
    }
    if (!before.blockSizes().equals(now.blockSizes())
        || !before.capabilities().equals(now.capabilities())) {
      throw new ChangedException("it came back with other flags or block sizes");
    }
  }

  private void writeAgain(Handle made) throws IOException {
    long at = 0;
    long count = 0;
    while (true) {
      Optional<Again> next = kept.beginAgain(owner, at);
      if (next.isEmpty()) {
        Logger.debug("{}: wrote {} pieces again", name, count);
        return;
      }
      Range range = next.get().range();
      try {
        if (next.get().data().isPresent()) {
          made.write(next.get().data().get(), range.start(), CommandFlags.NONE);
        } else {
          made.zero(range.start(), range.end() - range.start(), next.get().flags());
        }
      } catch (LostException broken) {
        throw broken;
      } catch (IOException refused) {
        throw (IOException)
            new ChangedException(
                    "what was answered cannot be written again: " + refused.getMessage())
                .initCause(refused);
      } finally {
        kept.end(range);
      }
      at = range.end();
      count++;
    }
  }

  private static Duration shorter(Duration one, Duration other) {
    return one.compareTo(other) < 0 ? one : other;
  }

  private static void sleep(Duration time) {
    try {
      Thread.sleep(time);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private void close(Handle broken) {
    try {
      broken.close();
    } catch (IOException failure) {
      Logger.debug("{}: {}", name, failure.getMessage());
    }
  }

  @Override
  public void read(ByteBuffer into, long offset) throws IOException {
    int start = into.position();
    run(handle -> handle.read(into.position(start), offset));
  }

  @Override
  public void cache(long offset, long length) throws IOException {
    run(handle -> handle.cache(offset, length));
  }

  @Override
  public List<Extent> extents(long offset, long length, int most) throws IOException {
    List<Extent> found = new ArrayList<>();
    run(handle -> found.addAll(handle.extents(offset, length, most)));
    return found;
  }

  @Override
  public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    int start = from.position();
    int end = from.limit();
    change(
        offset,
        end - start,
        end - start,
        handle -> {
          handle.write(from.limit(end).position(start), offset, flags);
        },
        range -> {
          ByteBuffer copy = ByteBuffer.allocate(end - start);
          copy.put(0, from, start, end - start);
          kept.keep(owner, range, copy, CommandFlags.NONE);
        });
  }

  @Override
  public void zero(long offset, long length, CommandFlags flags) throws IOException {
    change(
        offset,
        length,
        0,
        handle -> handle.zero(offset, length, flags),
        range -> kept.keep(owner, range, null, flags.without(CommandFlag.FUA)));
  }

  /** What is trimmed is undefined, so there is nothing to be done again. */
  @Override
  public void trim(long offset, long length, CommandFlags flags) throws IOException {
    Range range = kept.begin(offset, length);
    try {
      run(handle -> handle.trim(offset, length, flags));
    } finally {
      kept.end(range);
    }
  }

  /** How a change is kept. */
  @FunctionalInterface
  private interface Keeping {
    void keep(Range range);
  }

  private void change(long offset, long length, int dataBytes, Call call, Keeping keeping)
      throws IOException {
    if (keeps) {
      takeRoom(dataBytes);
    }
    boolean[] isKept = new boolean[1];
    Range range = kept.begin(offset, length);
    try {
      run(
          handle -> {
            call.on(handle);
            if (keeps) {
              keeping.keep(range);
              isKept[0] = true;
            }
          });
    } finally {
      kept.end(range);
      if (keeps && !isKept[0]) {
        kept.giveRoomBack(owner, dataBytes);
      }
    }
  }

  /** One flush makes room for all who want some. */
  private void takeRoom(int dataBytes) throws IOException {
    if (kept.tryTakeRoom(owner, dataBytes)) {
      return;
    }
    makingRoom.lock();
    try {
      while (!kept.tryTakeRoom(owner, dataBytes)) {
        flush();
      }
    } finally {
      makingRoom.unlock();
    }
  }

  @Override
  public void flush() throws IOException {
    run(
        handle -> {
          long mark = kept.mark();
          handle.flush();
          kept.drop(owner, mark);
        });
  }

  @Override
  public void close() throws IOException {
    kept.drop(owner, Long.MAX_VALUE);
    try {
      handle().close();
    } finally {
      afterClose.run();
    }
  }
}
