package nbd.multiconn;

import java.io.IOException;
import java.util.ArrayDeque;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.Map;
import java.util.NavigableMap;
import java.util.Objects;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * The handles that one backend flush covers: a single one, or where the backend is multi-conn all
 * openings of the same storage by one export name, and never more. A client's flush that needs the
 * scope flushed gets a {@link FlushRound} to wait for: at most one runs and one waits, however many
 * clients ask, except where every flush is to be passed on.
 *
 * <p><b>The same server.</b> The storage may be a server that is restarted. A flush that the new
 * one answers does not cover what the old one has lost, and only the old one's connections ever
 * find out. So openings are numbered once they are done, and each handle notes how many there were
 * when the newest of its answered writes began ({@link WriteMarks#openingsSeen}). If that is not
 * less than another handle's number, the server that answers the first handle was alive after the
 * other one had connected. One server at a time serves the export, so both handles are connected to
 * the same, and its answer to a flush covers both. A flush enters a handle for which this is proven
 * of all dirty ones: the caller's, or else the oldest dirty one; the others wrote after they had
 * been opened, and so after that one was.
 *
 * <p><b>The epoch</b> of a scope is the number of times at which writes of other scopes became
 * visible. It is the group's count of advances less the scope's own, and both change without a
 * lock. {@link #epoch} is never too high, so no read is taken for newer than it is; {@link
 * #latestEpoch} is never too low, so no advance is overlooked.
 *
 * <p>Guarded by the group's lock, but for what is said to need none.
 */
final class FlushScope {
  final Group group;
  final String exportName;

  /** The handles' identity. */
  final Object storage;

  /** The purpose of a flush, which decides whether the running one will do. */
  enum Need {
    /** Cover every write that has been completed. */
    WRITES,
    /** Start after now. */
    START,
    /** Wait for the reads that have begun, and start then. */
    REFRESH,
    /** Nothing but to be a flush that has not ended yet. */
    ANY,
    /** Serve this request alone, and wait for the reads that have begun. */
    OWN
  }

  /** The members by their numbers. */
  final NavigableMap<Long, Member> members = new TreeMap<>();

  final LinkedHashSet<Member> dirty = new LinkedHashSet<>();
  final LinkedHashSet<Member> readers = new LinkedHashSet<>();

  /** The number of the last loss that one of its handles has reported; 0 before. */
  long lastLoss;

  private @Nullable LeftBehind leftBehind;

  /**
   * Uncovered writes of members that have gone.
   *
   * @param openingsSeen the highest number of a handle whose flush covers them
   * @param why the last flush did not
   */
  private record LeftBehind(long openingsSeen, IOException why) {}

  private final ArrayDeque<FlushRound> waiting = new ArrayDeque<>();
  private @Nullable FlushRound running;

  /** Changed before the group's count: not less than what that has of this scope. */
  private final AtomicLong advancesBegun = new AtomicLong();

  /** Changed after the group's count: not more than what that has of this scope. */
  private final AtomicLong advancesEnded = new AtomicLong();

  /** The number of handles that have been opened; read without the lock. */
  private volatile long openings;

  FlushScope(Group group, String exportName, Object storage) {
    this.group = group;
    this.exportName = exportName;
    this.storage = storage;
  }

  /** Returns the epoch, or less while writes of this scope become visible. Takes no lock. */
  long epoch() {
    long all = group.advances.get();
    return all - advancesBegun.get();
  }

  /** Returns the epoch, or more while writes of this scope become visible. Takes no lock. */
  private long latestEpoch() {
    long own = advancesEnded.get();
    return group.advances.get() - own;
  }

  /** Begins a new epoch of the other scopes: writes of this one are visible. Takes no lock. */
  void advance() {
    advancesBegun.incrementAndGet();
    group.advances.incrementAndGet();
    advancesEnded.incrementAndGet();
  }

  /** The number of handles that have been opened. Takes no lock. */
  long openings() {
    return openings;
  }

  /** Counts a handle that has been opened; returns its number. */
  @SuppressWarnings("NonAtomicVolatileUpdate") // Changed only under the lock.
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
   * Notes that a member goes with uncovered writes.
   *
   * @param openingsSeen the highest number of a handle whose flush covers them
   * @param why the last flush did not
   */
  void leaveBehind(long openingsSeen, IOException why) {
    long before = leftBehind == null ? Long.MAX_VALUE : leftBehind.openingsSeen;
    leftBehind = new LeftBehind(Math.min(before, openingsSeen), why);
  }

  /**
   * Says whether a flush can still cover what was left behind when a member has gone.
   *
   * @param leaving null if none goes
   */
  boolean canCoverLeftBehindWithout(@Nullable Member leaving) {
    LeftBehind left = leftBehind;
    return left == null
        || left.openingsSeen == Long.MAX_VALUE
        || members.headMap(left.openingsSeen, true).values().stream()
            .anyMatch(member -> member != leaving);
  }

  /** Forgets what was left behind, since it is covered or lost; returns why it was left. */
  IOException takeLeftBehind() {
    IOException why = Objects.requireNonNull(leftBehind).why;
    leftBehind = null;
    return why;
  }

  /** Says whether a member may hold older data than others have made visible by now. */
  boolean isOutdated() {
    long now = latestEpoch();
    for (Member reader : readers) {
      if (reader.reads.olderThan(now)) {
        return true;
      }
    }
    return false;
  }

  /**
   * Finds the flush that does what is needed, or makes one. Each thread that waits for a flush that
   * is due and has not begun runs it ({@link #isDue}): none is left over when a thread has failed
   * after it had asked.
   *
   * @param asked the handle that the flush enters, if it is attached then and its flush is enough
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

  /** Says whether a flush is the next to run, and has not begun. */
  boolean isDue(FlushRound round) {
    return round == running && !round.begun;
  }

  private boolean suffices(FlushRound round, Need need) {
    return switch (need) {
      case WRITES ->
          !round.started
              || ((leftBehind == null || round.coversLeftBehind)
                  && dirty.stream().allMatch(round::covers));
      case START -> !round.started;
      case REFRESH -> round.refreshes(latestEpoch());
      case ANY -> true;
      case OWN -> false;
    };
  }

  /** Makes the next flush the running one, when that has ended. */
  @Nullable FlushRound next() {
    running = waiting.poll();
    return running;
  }

  /**
   * Chooses the handle that a flush enters to cover all that is uncovered: the one that asked, if
   * it is proven to reach the same server as all that wrote; else the oldest of them. Null if all
   * members have gone.
   */
  @Nullable Member handleToEnter(Member asked) {
    if (asked.attached && isCoveredBy(asked)) {
      return asked;
    }
    if (leftBehind != null || dirty.isEmpty()) {
      return members.isEmpty() ? null : members.firstEntry().getValue();
    }
    return dirty.stream().min(Comparator.comparingLong(member -> member.number)).orElseThrow();
  }

  /** Says whether a flush of a handle, if it succeeds, covers all uncovered writes. */
  boolean isCoveredBy(Member entered) {
    return (leftBehind == null || leftBehind.openingsSeen >= entered.number)
        && dirty.stream().allMatch(member -> member.writes.openingsSeen() >= entered.number);
  }

  /** Returns the number of completed writes of each member that has uncovered ones. */
  Map<Member, Long> completedWrites() {
    Map<Member, Long> counts = new LinkedHashMap<>();
    dirty.forEach(member -> counts.put(member, member.writes.completed()));
    return counts;
  }

  /**
   * Marks writes as covered by a flush that has succeeded, and had started when they were counted.
   *
   * @param entered the member whose handle was flushed
   * @return whether any were not covered before
   */
  boolean cover(Map<Member, Long> counts, Member entered) {
    boolean news = false;
    for (Map.Entry<Member, Long> counted : counts.entrySet()) {
      Member member = counted.getKey();
      news |= group.cover(member, counted.getValue(), entered);
      group.settleWrites(member);
    }
    group.settle(this);
    return news;
  }
}
