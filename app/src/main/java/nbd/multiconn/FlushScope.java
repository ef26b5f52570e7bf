package nbd.multiconn;

import java.util.ArrayDeque;
import java.util.LinkedHashSet;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The handles that one backend flush covers: a single one, or where the backend is multi-conn all
 * openings of the same storage by one export name, and never more. Whoever needs the scope flushed
 * asks here, and gets a {@link FlushRound} to wait for: at most one runs and one waits, however
 * many ask, except where every flush is to be passed on.
 *
 * <p>Guarded by the group's lock, but for {@link #age}.
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
    /** Be one. */
    ANY,
    /** Be one for this request alone, which waits for the reads that have begun. */
    OWN
  }

  final Set<Member> members = new LinkedHashSet<>();
  final Set<Member> dirty = new LinkedHashSet<>();
  final Set<Member> readers = new LinkedHashSet<>();

  /** A member left uncovered writes behind that the next flush covers. */
  boolean leftBehind;

  /** The number of the last loss that one of its handles has told of; 0 before. */
  long lastLoss;

  private final ArrayDeque<FlushRound> waiting = new ArrayDeque<>();
  private @Nullable FlushRound running;

  /** How often something of this scope's own became visible. */
  private volatile long advances;

  FlushScope(Group group, String exportName, Object storage) {
    this.group = group;
    this.exportName = exportName;
    this.storage = storage;
  }

  /**
   * How often something became visible that other scopes wrote. The group's count is read first,
   * and an advance changes this one first, so that without the lock the age is never too high: a
   * read is never taken for newer than it is.
   */
  long age() {
    long all = group.advances;
    return all - advances;
  }

  /** Writes of this scope have become visible. Under the group's lock, which alone changes both. */
  @SuppressWarnings("NonAtomicVolatileUpdate")
  void advance() {
    advances++;
    group.advances++;
  }

  boolean isDirty() {
    return !dirty.isEmpty() || leftBehind;
  }

  /** Whether a member may hold older data than what others have made visible by now. */
  boolean isOutdated() {
    long age = age();
    for (Member reader : readers) {
      if (reader.reads.olderThan(age)) {
        return true;
      }
    }
    return false;
  }

  /**
   * Finds the flush that does what is needed, or begins one.
   *
   * @param asked the handle that the flush enters, if it can still be entered then
   */
  Request request(Need need, Member asked) {
    FlushRound present = running;
    if (present != null && suffices(present, need)) {
      return new Request(present, false);
    }
    FlushRound last = waiting.peekLast();
    if (last != null && need != Need.OWN) {
      last.waitsForReads |= need == Need.REFRESH;
      return new Request(last, false);
    }
    FlushRound made = new FlushRound(this, asked);
    made.waitsForReads = need == Need.REFRESH || need == Need.OWN;
    if (present == null) {
      running = made;
      return new Request(made, true);
    }
    waiting.add(made);
    return new Request(made, false);
  }

  private boolean suffices(FlushRound round, Need need) {
    return switch (need) {
      case WRITES -> !round.started() || covers(round);
      case START -> !round.started();
      case REFRESH -> round.refreshes(age());
      case ANY -> true;
      case OWN -> false;
    };
  }

  private boolean covers(FlushRound round) {
    if (leftBehind && !round.coversLeftBehind()) {
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

  /** Which handle a flush enters: the one that asked, unless it has gone; null if all have. */
  @Nullable Member enterable(Member asked) {
    if (asked.attached) {
      return asked;
    }
    for (Member member : members) {
      if (member.attached) {
        return member;
      }
    }
    return null;
  }

  /**
   * A flush.
   *
   * @param round what to wait for
   * @param isToBeRun whether whoever asked has to run it
   */
  record Request(FlushRound round, boolean isToBeRun) {}
}
