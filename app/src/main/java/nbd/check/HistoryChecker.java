package nbd.check;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Says of each read, over several connections to one export, whether multi-conn allows what it
 * returned. It is told the beginning and the end of every command as the client sees them: the
 * beginning before the request is sent, the end after the reply has come. Each block is a register
 * of its own, and each write has a value of its own.
 *
 * <p>The rule. Time is the order in which this object is told of events. A write or read
 * <i>knows</i> a write <i>w</i> that has succeeded, if <i>w</i> ended before it began, and
 *
 * <ul>
 *   <li>both are on the same connection, or
 *   <li><i>w</i> was made with FUA, or
 *   <li>some flush, on whatever connection, began after <i>w</i> ended, succeeded, and ended before
 *       it began.
 * </ul>
 *
 * A write is <i>newer</i> than those of its block that it knows. A read may return a value exactly
 * if that is the value of a write of this block that began before the read ended, and the read
 * knows no newer write of the block. The first contents, value 0, are a write that everything
 * knows. A write that failed, or has no reply, may be seen, and is known by none.
 *
 * <p>So two writes on different connections without a flush between them have no order, even if one
 * ended before the other began: each may win, as it may where connections cache on their own. What
 * has to be durable after a crash, reads cannot show, and this does not check.
 *
 * <p>Any thread may call. What has been overwritten for good is forgotten, so that memory does not
 * grow with the history.
 */
public final class HistoryChecker {
  private static final long NEVER = Long.MAX_VALUE;
  private static final int FORGET_ABOVE = 32;

  private final ReentrantLock lock = new ReentrantLock();
  private final List<List<Write>> blocks = new ArrayList<>();
  private final Set<Read> reading = new HashSet<>();
  private long now;
  private long lastValue;
  private Flush latest;

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

    /** What it has to write: a number that no other write has. */
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

  /** A read. */
  public static final class Read {
    private final int connection;
    private final int block;
    private final long began;
    private final Flush flushBefore;

    private Read(int connection, int block, long began, Flush flushBefore) {
      this.connection = connection;
      this.block = block;
      this.began = began;
      this.flushBefore = flushBefore;
    }
  }

  /** A flush. */
  public static final class Flush {
    private final int connection;
    private final long began;

    private Flush(int connection, long began) {
      this.connection = connection;
      this.began = began;
    }
  }

  /**
   * A read that the promise does not allow.
   *
   * @param block the block's number
   * @param connection the connection that read
   * @param value what it returned
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
    // The first contents were flushed by a flush that began after them, and follow on nothing.
    Flush none = new Flush(0, 0);
    Flush first = new Flush(0, 1);
    for (int block = 0; block < blocks; block++) {
      Write contents = new Write(0, 0, false, 0, none);
      contents.ended = 0;
      List<Write> writes = new ArrayList<>();
      writes.add(contents);
      this.blocks.add(writes);
    }
    latest = first;
    now = 1;
  }

  /** A write is about to be sent. */
  public Write beginWrite(int connection, int block, boolean fua) {
    lock.lock();
    try {
      lastValue++;
      now++;
      Write write = new Write(connection, lastValue, fua, now, latest);
      List<Write> writes = blocks.get(block);
      if (writes.size() > FORGET_ABOVE) {
        forget(writes);
      }
      writes.add(write);
      return write;
    } finally {
      lock.unlock();
    }
  }

  /** The reply to a write has come. */
  public void endWrite(Write write, boolean succeeded) {
    lock.lock();
    try {
      now++;
      if (succeeded) {
        write.ended = now;
      }
    } finally {
      lock.unlock();
    }
  }

  /** A write that was answered has been reported to be lost: it may be seen, and need not be. */
  public void lose(Write write) {
    lock.lock();
    try {
      write.ended = NEVER;
    } finally {
      lock.unlock();
    }
  }

  /** A flush is about to be sent. */
  public Flush beginFlush(int connection) {
    lock.lock();
    try {
      now++;
      return new Flush(connection, now);
    } finally {
      lock.unlock();
    }
  }

  /** The reply to a flush has come. */
  public void endFlush(Flush flush, boolean succeeded) {
    lock.lock();
    try {
      now++;
      // Of the flushes that have ended, the one that began last makes known what all others do.
      if (succeeded && flush.began > latest.began) {
        latest = flush;
      }
    } finally {
      lock.unlock();
    }
  }

  /** A read is about to be sent. */
  public Read beginRead(int connection, int block) {
    lock.lock();
    try {
      now++;
      Read read = new Read(connection, block, now, latest);
      reading.add(read);
      return read;
    } finally {
      lock.unlock();
    }
  }

  /** A read has failed, and so returned nothing. */
  public void failRead(Read read) {
    lock.lock();
    try {
      reading.remove(read);
    } finally {
      lock.unlock();
    }
  }

  /** The reply to a read has come. Answers how it breaks the promise, if it does. */
  public Optional<Violation> endRead(Read read, long value) {
    lock.lock();
    try {
      now++;
      reading.remove(read);
      return check(read, value);
    } finally {
      lock.unlock();
    }
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
   * Forgets the writes that no read may return any more: those that are older than one that every
   * read in flight or to come knows by a flush. What they would forbid, that one forbids too.
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
