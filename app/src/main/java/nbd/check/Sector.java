package nbd.check;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.Predicate;
import nbd.check.HistoryChecker.Read;
import nbd.check.HistoryChecker.Write;
import nbd.check.Violation.Level;
import org.jspecify.annotations.Nullable;

/**
 * The writes of one sector that a read may still return, and their order as far as it is settled.
 * Used under the lock of its {@link HistoryChecker}.
 *
 * <p>Each write has a slot, and for each level the set of the slots of older writes. The sets are
 * transitively closed, so a write can be removed and the order of the others stays. A set is the
 * bits of a word. When all slots are taken, the writes that ended first are merged into one, which
 * is known only to who knows all of them, and older only than what all of them are older than. So
 * merging may miss a violation and never makes one.
 */
final class Sector {
  static final Limits LIMITS = new Limits(12, Long.SIZE);

  private final Limits limits;
  private final int number;
  private @Nullable Write[] writes = new @Nullable Write[4];

  /** The value that each write leaves in this sector; that of a trim does not matter. */
  private long[] values = new long[writes.length];

  /** The slots of trims, which leave anything. */
  private long trims;

  private final Map<Level, long[]> older = new EnumMap<>(Level.class);

  /** The slots in use. */
  private long live;

  private int forgetFrom;

  /** The slot of the merged writes, and what they have left; -1 if there are none. */
  private int mergedSlot = -1;

  private final Leftovers merged = new Leftovers();

  /** What was left by writes that failed: any read may return it. */
  private final Leftovers failed = new Leftovers();

  /** The reads that have settled an order, by the write that they returned. */
  private final Map<Write, List<Settled>> settled = new HashMap<>();

  /** The number of slots, at most 64, and how many may be taken before any write is forgotten. */
  record Limits(int forgetFrom, int slots) {}

  /** A read that settled, at a level, that the writes which it knew are older than another. */
  record Settled(Read read, Level level) {}

  /** What some writes may have left in the sector. */
  private static final class Leftovers {
    final Set<Long> values = new HashSet<>();
    boolean isAnything;

    void add(Write write, int sector) {
      values.add(write.valueIn(sector));
      isAnything |= write.leavesAnything();
    }

    boolean have(long value) {
      return isAnything || values.contains(value);
    }

    void clear() {
      values.clear();
      isAnything = false;
    }
  }

  Sector(int number, Write contents, Set<Level> levels, Limits limits) {
    this.number = number;
    this.limits = limits;
    this.forgetFrom = limits.forgetFrom;
    for (Level level : levels) {
      older.put(level, new long[writes.length]);
    }
    add(contents);
  }

  int number() {
    return number;
  }

  /** Returns the reads that returned a write, and so settled that others are older. */
  List<Settled> settled(Write returned) {
    return settled.getOrDefault(returned, List.of());
  }

  private long[] older(Level level) {
    return Objects.requireNonNull(older.get(level));
  }

  Write write(int slot) {
    return Objects.requireNonNull(writes[slot]);
  }

  private static long bit(int slot) {
    return 1L << slot;
  }

  /** Returns the slots of the writes for which something holds. */
  long slots(Predicate<Write> condition) {
    long found = 0;
    for (long rest = live; rest != 0; rest &= rest - 1) {
      int slot = Long.numberOfTrailingZeros(rest);
      if (condition.test(write(slot))) {
        found |= bit(slot);
      }
    }
    return found;
  }

  long slotsKnownTo(Request request, Level level) {
    long found = 0;
    for (long rest = live; rest != 0; rest &= rest - 1) {
      int slot = Long.numberOfTrailingZeros(rest);
      Write write = write(slot);
      if (write != request && request.knows(write, level)) {
        found |= bit(slot);
      }
    }
    return found;
  }

  /** Returns the slots of the writes that are older than any of some others. */
  long olderThan(long slots, Level level) {
    long[] sets = older(level);
    long found = 0;
    for (long rest = slots; rest != 0; rest &= rest - 1) {
      found |= sets[Long.numberOfTrailingZeros(rest)];
    }
    return found;
  }

  /** Returns the slots of the writes that may have left a value. */
  long slotsOf(long value) {
    long found = trims & live;
    for (long rest = live; rest != 0; rest &= rest - 1) {
      int slot = Long.numberOfTrailingZeros(rest);
      if (values[slot] == value) {
        found |= bit(slot);
      }
    }
    if (mergedSlot >= 0) {
      found = merged.have(value) ? found | bit(mergedSlot) : found & ~bit(mergedSlot);
    }
    return found;
  }

  /** Returns the values that a read may return which knows some writes. */
  Set<Long> allowed(long known, Level level) {
    Set<Long> values = new TreeSet<>(failed.values);
    for (long rest = live & ~olderThan(known, level); rest != 0; rest &= rest - 1) {
      int slot = Long.numberOfTrailingZeros(rest);
      if (slot == mergedSlot) {
        values.addAll(merged.values);
      } else {
        values.add(write(slot).valueIn(number));
      }
    }
    return values;
  }

  boolean allows(long value, long known, Level level) {
    return failed.have(value) || (slotsOf(value) & ~olderThan(known, level)) != 0;
  }

  /** Takes in a write that begins. */
  void begin(Write write, Predicate<Write> isKnownToAll) {
    if (Long.bitCount(live) >= forgetFrom) {
      forget(isKnownToAll);
      forgetFrom = Math.clamp(2L * Long.bitCount(live), limits.forgetFrom, limits.slots);
    }
    while (isFull() && merge()) {}
    if (isFull()) {
      failed.add(write, number);
      return;
    }
    int slot = add(write);
    for (Level level : older.keySet()) {
      long known = slotsKnownTo(write, level);
      older(level)[slot] = known | olderThan(known, level);
    }
  }

  private boolean isFull() {
    return Long.bitCount(live) == limits.slots;
  }

  private int add(Write write) {
    int slot = Long.numberOfTrailingZeros(~live);
    if (slot == writes.length) {
      writes = Arrays.copyOf(writes, 2 * slot);
      values = Arrays.copyOf(values, 2 * slot);
      older.replaceAll((level, sets) -> Arrays.copyOf(sets, 2 * slot));
    }
    writes[slot] = write;
    values[slot] = write.valueIn(number);
    trims = write.leavesAnything() ? trims | bit(slot) : trims & ~bit(slot);
    live |= bit(slot);
    return slot;
  }

  /** Judges what a read has returned, and notes the order that it settles. */
  Optional<Level> judge(Read read, List<Long> values) {
    for (Level level : older.keySet()) {
      long known = slotsKnownTo(read, level);
      long outdated = olderThan(known, level);
      long returned = 0;
      for (long value : values) {
        returned = slotsOf(value) & ~outdated;
        if (returned == 0 && !failed.have(value)) {
          return Optional.of(level);
        }
      }
      if (values.size() == 1 && Long.bitCount(returned) == 1 && !failed.have(values.getFirst())) {
        settle(read, returned, (known | outdated) & ~returned, level);
      }
    }
    return Optional.empty();
  }

  /** Notes that some writes are older than the one that a read returned. */
  private void settle(Read read, long returned, long more, Level level) {
    long[] sets = older(level);
    if ((more & ~sets[Long.numberOfTrailingZeros(returned)]) == 0) {
      return;
    }
    for (long rest = live; rest != 0; rest &= rest - 1) {
      int slot = Long.numberOfTrailingZeros(rest);
      if (bit(slot) == returned || (sets[slot] & returned) != 0) {
        sets[slot] |= more;
      }
    }
    settled
        .computeIfAbsent(write(Long.numberOfTrailingZeros(returned)), key -> new ArrayList<>())
        .add(new Settled(read, level));
  }

  /**
   * Lets any read return what a write has left, if some read still may. The order that reads have
   * settled may rest on an answered write, and is forgotten with it.
   */
  void lose(Write write, boolean wasAnswered) {
    long slot = slots(other -> other == write);
    if (slot != 0 || (mergedSlot >= 0 && merged.have(write.valueIn(number)))) {
      failed.add(write, number);
    }
    remove(slot);
    if (wasAnswered) {
      settled.clear();
      older.keySet().forEach(this::order);
    }
  }

  /** Orders the writes by what they know of each other. */
  private void order(Level level) {
    long[] sets = older(level);
    for (int slot = 0; slot < sets.length; slot++) {
      sets[slot] = (live & bit(slot)) == 0 ? 0 : slotsKnownTo(write(slot), level);
    }
    for (int between = 0; between < sets.length; between++) {
      for (int slot = 0; slot < sets.length; slot++) {
        if ((sets[slot] & bit(between)) != 0) {
          sets[slot] |= sets[between];
        }
      }
    }
  }

  /** Notes that writes which were lost by a crash are not made later. */
  void crash(Write lost, Predicate<Write> isKnownToAll) {
    if (failed.values.isEmpty()) {
      return;
    }
    if (mergedSlot >= 0) {
      forget(isKnownToAll);
    }
    if (mergedSlot < 0 && !isFull()) {
      mergedSlot = add(lost);
    } else if (mergedSlot >= 0 || merge()) {
      absorb(lost, 0);
    } else {
      return;
    }
    merged.values.addAll(failed.values);
    merged.isAnything |= failed.isAnything;
    failed.clear();
  }

  /**
   * Forgets the writes that no read may return any more: those older than a write that every read
   * knows, in flight or later. What such a read returns is newer than both.
   */
  private void forget(Predicate<Write> isKnownToAll) {
    remove(olderThan(slots(isKnownToAll), Level.FLUSH));
  }

  /** Merges the answered write that ended first with the merged ones. */
  private boolean merge() {
    int first = -1;
    long end = Request.NEVER;
    for (long rest = live; rest != 0; rest &= rest - 1) {
      int slot = Long.numberOfTrailingZeros(rest);
      if (slot != mergedSlot && write(slot).ended < end) {
        first = slot;
        end = write(slot).ended;
      }
    }
    if (first < 0) {
      return false;
    }
    merged.add(write(first), number);
    if (mergedSlot < 0) {
      mergedSlot = first;
      return true;
    }
    for (long[] sets : older.values()) {
      sets[mergedSlot] |= sets[first] & ~bit(mergedSlot);
    }
    absorb(write(first), bit(first));
    remove(bit(first));
    return true;
  }

  /** Makes the merged write stand for one more, which has this slot, if it has one. */
  private void absorb(Write write, long itsSlot) {
    for (long[] sets : older.values()) {
      for (int slot = 0; slot < sets.length; slot++) {
        if ((sets[slot] & itsSlot) == 0) {
          sets[slot] &= ~bit(mergedSlot);
        }
      }
    }
    settled.remove(write(mergedSlot));
    writes[mergedSlot] = Write.merged(write(mergedSlot), write);
  }

  private void remove(long slots) {
    if (slots == 0) {
      return;
    }
    live &= ~slots;
    for (long[] sets : older.values()) {
      for (int slot = 0; slot < sets.length; slot++) {
        sets[slot] &= ~slots;
      }
    }
    for (long rest = slots; rest != 0; rest &= rest - 1) {
      int slot = Long.numberOfTrailingZeros(rest);
      settled.remove(write(slot));
      writes[slot] = null;
    }
    if (mergedSlot >= 0 && (slots & bit(mergedSlot)) != 0) {
      mergedSlot = -1;
      merged.clear();
    }
  }
}
