package nbd.check;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Supplier;

/**
 * A judge of what clients read over several connections to one export: it finds each read that the
 * promise of multi-conn does not allow. A test reports the beginning and the end of every command
 * as the client sees them: the beginning before the request is sent, the end after the reply has
 * come. Each block is a register, and each write has a value of its own.
 *
 * <p>The rule. Time is the order of the reports. A write or read <i>knows</i> a successful write
 * <i>w</i>, if <i>w</i> ended before it began, and
 *
 * <ul>
 *   <li>both are on the same connection, or
 *   <li><i>w</i> was made with FUA, or
 *   <li>some flush, on any connection, began after <i>w</i> ended, succeeded, and ended before it
 *       began.
 * </ul>
 *
 * A write is <i>newer</i> than the writes of its block that it knows. A read may return the value
 * of any write of its block that began before the read ended, unless the read knows a newer write
 * of the block. The first contents, value 0, are a write that everything knows. A write that
 * failed, or has no reply, may be seen, and nothing knows it.
 *
 * <p>So two writes on different connections without a flush between them have no order, even if one
 * ended before the other began: either may win, as it may where connections have caches. Reads
 * cannot show what survives a crash, so this does not check it.
 *
 * <p>Any thread may call. Writes that no read can return any more are forgotten, so that memory
 * does not grow with the history.
 */
public final class HistoryChecker {
  private static final long NEVER = Long.MAX_VALUE;
  private static final int FORGET_ABOVE = 32;

  /** Guards everything below. */
  private final ReentrantLock lock = new ReentrantLock();

  private final List<List<Write>> blocks = new ArrayList<>();
  private final Set<Read> reading = new HashSet<>();
  private long now = 1;
  private long lastValue;

  /** The successful flush that began last: it makes known what the others do. */
  private Flush latest = new Flush(0, 1);

  /** A write, trim or zero. */
  public static final class Write {
    private final int connection;
    private final long value;
    private final boolean fua;
    private final long began;
    private final Flush flushBefore;
    private long ended = NEVER;

    private Write(int connection, long value, boolean fua, long began, Flush flushBefore) {
      this.connection = connection;
      this.value = value;
      this.fua = fua;
      this.began = began;
      this.flushBefore = flushBefore;
    }

    /** Returns the value to write, which no other write has. */
    public long value() {
      return value;
    }

    private boolean isKnownTo(int onConnection, long at, Flush flush) {
      return ended < flush.began || (ended < at && (fua || connection == onConnection));
    }

    private boolean isOlderThan(Write other) {
      return isKnownTo(other.connection, other.began, other.flushBefore);
    }

    private String describe() {
      return value == 0
          ? "the first contents"
          : "write %d on connection %d".formatted(value, connection);
    }
  }

  /** A read in flight, as the checker made it. */
  public record Read(int connection, int block, long began, Flush flushBefore) {}

  /** A flush, as the checker made it. */
  public record Flush(int connection, long began) {}

  /**
   * A read that the promise does not allow.
   *
   * @param block the block's number
   * @param connection the connection that read
   * @param value that the read returned
   * @param history the events that show it, in order, for people
   */
  public record Violation(int block, int connection, long value, List<String> history) {
    /** Keeps a copy. */
    public Violation {
      history = List.copyOf(history);
    }
  }

  /** Starts with all blocks of value 0. */
  public HistoryChecker(int blocks) {
    for (int block = 0; block < blocks; block++) {
      Write contents = new Write(0, 0, false, 0, new Flush(0, 0));
      contents.ended = 0;
      List<Write> writes = new ArrayList<>();
      writes.add(contents);
      this.blocks.add(writes);
    }
  }

  private <T> T locked(Supplier<T> action) {
    lock.lock();
    try {
      now++;
      return action.get();
    } finally {
      lock.unlock();
    }
  }

  /** Reports that a write is about to be sent. */
  public Write beginWrite(int connection, int block, boolean fua) {
    return locked(
        () -> {
          lastValue++;
          Write write = new Write(connection, lastValue, fua, now, latest);
          List<Write> writes = blocks.get(block);
          if (writes.size() > FORGET_ABOVE) {
            forget(writes);
          }
          writes.add(write);
          return write;
        });
  }

  /** Reports the reply to a write. */
  public void endWrite(Write write, boolean succeeded) {
    locked(() -> write.ended = succeeded ? now : NEVER);
  }

  /** Reports that an answered write may be lost: it may be seen, and need not be. */
  public void lose(Write write) {
    locked(() -> write.ended = NEVER);
  }

  /** Reports that a flush is about to be sent. */
  public Flush beginFlush(int connection) {
    return locked(() -> new Flush(connection, now));
  }

  /** Reports the reply to a flush. */
  public void endFlush(Flush flush, boolean succeeded) {
    locked(() -> latest = succeeded && flush.began > latest.began ? flush : latest);
  }

  /** Reports that a read is about to be sent. */
  public Read beginRead(int connection, int block) {
    return locked(
        () -> {
          Read read = new Read(connection, block, now, latest);
          reading.add(read);
          return read;
        });
  }

  /** Reports that a read has failed, and so returned nothing. */
  public void failRead(Read read) {
    locked(() -> reading.remove(read));
  }

  /** Reports the value that a read has returned, and judges it. */
  public Optional<Violation> endRead(Read read, long value) {
    return locked(
        () -> {
          reading.remove(read);
          return check(read, value);
        });
  }

  private Optional<Violation> check(Read read, long value) {
    List<Write> writes = blocks.get(read.block);
    Optional<Write> returned = writes.stream().filter(write -> write.value == value).findFirst();
    if (returned.isEmpty()) {
      String what =
          value > 0 && value <= lastValue
              ? "which was overwritten long before, or belongs to another block"
              : "which nobody wrote";
      return Optional.of(violation(read, value, List.of(), what));
    }
    for (Write newer : writes) {
      if (newer.isKnownTo(read.connection, read.began, read.flushBefore)
          && returned.get().isOlderThan(newer)) {
        return Optional.of(violation(read, value, story(returned.get(), newer, read), "too old"));
      }
    }
    return Optional.empty();
  }

  private static List<String> story(Write returned, Write newer, Read read) {
    List<String> story = new ArrayList<>();
    story.add(returned.describe() + " ended");
    if (returned.ended < newer.flushBefore.began && returned.connection != newer.connection) {
      story.add("flush on connection %d succeeded".formatted(newer.flushBefore.connection));
    }
    story.add(newer.describe() + " ended");
    if (newer.ended < read.flushBefore.began) {
      story.add("flush on connection %d succeeded".formatted(read.flushBefore.connection));
    }
    return story;
  }

  private static Violation violation(Read read, long value, List<String> story, String what) {
    List<String> history = new ArrayList<>(story);
    history.add(
        "read of block %d on connection %d returned %d, %s"
            .formatted(read.block, read.connection, value, what));
    return new Violation(read.block, read.connection, value, history);
  }

  /**
   * Forgets the writes that no read may return any more: those that are older than a write which
   * every read, in flight or later, knows by a flush. That write forbids whatever they would.
   */
  private void forget(List<Write> writes) {
    long known = latest.began;
    for (Read read : reading) {
      known = Math.min(known, read.flushBefore.began);
    }
    long olderThan = 0;
    for (Write write : writes) {
      if (write.ended < known) {
        olderThan = Math.max(olderThan, write.flushBefore.began);
      }
    }
    long limit = olderThan;
    writes.removeIf(write -> write.ended < limit);
  }
}
