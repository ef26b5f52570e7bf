package nbd.multiconn;

import java.io.IOException;
import java.util.ArrayDeque;
import java.util.LinkedHashSet;
import java.util.NavigableMap;
import java.util.Objects;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * The handles that one backend flush covers: a single one, or where the backend is multi-conn all
 * openings of the same storage by one export name, and never more. Whoever needs the scope flushed
 * asks here, and gets a {@link FlushRound} to wait for: at most one runs and one waits, however
 * many ask, except where every flush is to be passed on.
 *
 * <p><b>The same server.</b> The storage may be a server that is restarted. A flush that the new
 * one answers does not cover what the old one has lost, and only the old one's connections ever
 * find out. So openings are numbered once they are done, and each handle notes how many there were
 * when the newest of its answered writes began ({@link WriteMarks#provenWith}). If that is not less
 * than another handle's number, the server that answers the first handle was alive after the other
 * one had connected. One server at a time serves the export, so both handles are connected to the
 * same, and its answer to a flush covers both. A flush enters a handle with which this is proven
 * for all dirty ones: the caller's, or else the oldest dirty one; the others wrote after they had
 * been opened, and so after that one was.
 *
 * <p>Guarded by the group's lock, but for what is said to take none.
 */
final class FlushScope {
  final Group group;
  final String exportName;

  /** The handles' identity. */
  final Object storage;

  /** What the flush has to achieve, which tells whether the running one will do. */
  enum Need {
    /** Cover every write that has been completed. */
    WRITES,
    /** Start after now. */
    START,
    /** Wait for the reads that have begun, and start then. */
    REFRESH,
    /** Any flush that has not ended yet. */
    ANY,
    /** Be one for this request alone, which waits for the reads that have begun. */
    OWN
  }

  /** By their numbers. */
  final NavigableMap<Long, Member> members = new TreeMap<>();

  final LinkedHashSet<Member> dirty = new LinkedHashSet<>();
  final LinkedHashSet<Member> readers = new LinkedHashSet<>();

  /** The number of the last loss that one of its handles has told of; 0 before. */
  long lastLoss;

  /** What members that have gone left uncovered; null if nothing. */
  private @Nullable LeftBehind leftBehind;

  /**
   * Writes of members that have gone.
   *
   * @param provenWith the highest number of a handle whose flush covers them
   * @param why the last flush did not
   */
  private record LeftBehind(long provenWith, IOException why) {}

  private final ArrayDeque<FlushRound> waiting = new ArrayDeque<>();
  private @Nullable FlushRound running;

  /** Changed before the group's count: not less than what that has of this scope. */
  private final AtomicLong advancesBegun = new AtomicLong();

  /** Changed after the group's count: not more than what that has of this scope. */
  private final AtomicLong advancesEnded = new AtomicLong();

  /**
   * How many handles have been opened; changed under the lock, which those who read do not take.
   */
  private volatile long openings;

  FlushScope(Group group, String exportName, Object storage) {
    this.group = group;
    this.exportName = exportName;
    this.storage = storage;
  }

  /**
   * How often something became visible that other scopes wrote; never too high, so that no read is
   * taken for newer than it is. Takes no lock.
   */
  long age() {
    long all = group.advances.get();
    return all - advancesBegun.get();
  }

  /** The same, but never too low, so that no advance is overlooked. Takes no lock. */
  private long latestAge() {
    long own = advancesEnded.get();
    return group.advances.get() - own;
  }

  /** Writes of this scope have become visible. Takes no lock. */
  void advance() {
    advancesBegun.incrementAndGet();
    group.advances.incrementAndGet();
    advancesEnded.incrementAndGet();
  }

  /** How many handles have been opened. Takes no lock. */
  long openings() {
    return openings;
  }

  /** A handle has been opened. Answers its number. */
  @SuppressWarnings("NonAtomicVolatileUpdate") // Only under the lock; the others only read it.
  long countOpening() {
    return ++openings;
  }

  boolean isDirty() {
    return !dirty.isEmpty() || leftBehind != null;
  }

  boolean hasLeftBehind() {
    return leftBehind != null;
  }

  /**
   * A member goes with uncovered writes.
   *
   * @param provenWith the highest number of a handle whose flush covers them
   * @param why the last flush did not
   */
  void leaveBehind(long provenWith, IOException why) {
    LeftBehind before = leftBehind;
    leftBehind =
        new LeftBehind(before == null ? provenWith : Math.min(before.provenWith, provenWith), why);
  }

  /**
   * Whether a flush can still cover what was left behind if this member goes; null if none does.
   */
  boolean canCoverLeftBehindWithout(@Nullable Member leaving) {
    LeftBehind left = leftBehind;
    if (left == null || left.provenWith == Long.MAX_VALUE) {
      return true;
    }
    for (Member member : members.headMap(left.provenWith, true).values()) {
      if (member != leaving) {
        return true;
      }
    }
    return false;
  }

  /** Forgets what was left behind: it is covered, or lost. Answers why it was left. */
  IOException takeLeftBehind() {
    IOException why = Objects.requireNonNull(leftBehind).why;
    leftBehind = null;
    return why;
  }

  /** Whether a member may hold older data than what others have made visible by now. */
  boolean isOutdated() {
    long age = latestAge();
    for (Member reader : readers) {
      if (reader.reads.olderThan(age)) {
        return true;
      }
    }
    return false;
  }

  /**
   * Finds the flush that does what is needed, or makes one. Whoever waits for a flush that is due
   * and that nobody has begun runs it ({@link #isToBeRun}): none is left behind by a thread that
   * failed after it had asked.
   *
   * @param asked the handle that the flush enters, if it can be entered then, and is enough
   */
  FlushRound request(Need need, Member asked) {
    FlushRound present = running;
    if (present != null && suffices(present, need)) {
      return present;
    }
    FlushRound last = waiting.peekLast();
    if (last != null && need != Need.OWN) {
      last.waitsForReads |= need == Need.REFRESH;
      return last;
    }
    FlushRound made = new FlushRound(this, asked);
    made.waitsForReads = need == Need.REFRESH || need == Need.OWN;
    if (present == null) {
      running = made;
    } else {
      waiting.add(made);
    }
    return made;
  }

  /** Whether a flush is due that nobody has begun. */
  boolean isToBeRun(FlushRound round) {
    return round == running && !round.begun();
  }

  private boolean suffices(FlushRound round, Need need) {
    return switch (need) {
      case WRITES -> !round.started() || covers(round);
      case START -> !round.started();
      case REFRESH -> round.refreshes(latestAge());
      case ANY -> true;
      case OWN -> false;
    };
  }

  private boolean covers(FlushRound round) {
    if (leftBehind != null && !round.coversLeftBehind()) {
      return false;
    }
    for (Member member : dirty) {
      if (member.writes.completed() > member.target) {
        return false;
      }
    }
    return true;
  }

  /** The running flush is over; answers the one that is to run now. */
  @Nullable FlushRound next() {
    running = waiting.poll();
    return running;
  }

  /**
   * The handle that a flush enters to cover all that is uncovered: the one that asked, if it is
   * proven to reach the same server as all who wrote; else the oldest of them. Null if all members
   * have gone.
   */
  @Nullable Member entry(Member asked) {
    if (asked.attached && isCoveredBy(asked)) {
      return asked;
    }
    if (leftBehind != null || dirty.isEmpty()) {
      return members.isEmpty() ? null : members.firstEntry().getValue();
    }
    Member oldest = dirty.getFirst();
    for (Member member : dirty) {
      oldest = member.number < oldest.number ? member : oldest;
    }
    return oldest;
  }

  /** Whether a flush of a handle, if it succeeds, covers all that is uncovered. */
  boolean isCoveredBy(Member entered) {
    if (leftBehind != null && leftBehind.provenWith < entered.number) {
      return false;
    }
    for (Member member : dirty) {
      if (!member.isProvenWith(entered)) {
        return false;
      }
    }
    return true;
  }
}
