package nbd.file;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * A search for broken promises, which cuts the power after each event of a history.
 *
 * <p>After a cut the disk has, of each byte, the last change that was stored for certain or any
 * later one. A promise may be broken if and only if the oldest of these breaks it: so it is enough
 * to compare, for each byte, the last change that was stored for certain with the last one that a
 * client was told is durable.
 */
final class PowerLoss {
  private final int[] last;
  private final int[] stored;
  private final int[] lost;
  private final int[] answered;
  private final int[] promised;
  private final Map<Integer, int[]> syncs = new HashMap<>();
  private final Map<Integer, int[]> flushes = new HashMap<>();

  /** The last change of each byte by each command. */
  private final Map<Integer, int[]> changes = new HashMap<>();

  private PowerLoss(int size) {
    last = new int[size];
    stored = new int[size];
    lost = new int[size];
    answered = new int[size];
    promised = new int[size];
  }

  /** Finds the first cut that breaks a promise. */
  static Optional<String> find(List<FakeDisk.Event> events, int size) {
    PowerLoss disk = new PowerLoss(size);
    for (int cut = 0; cut < events.size(); cut++) {
      disk.replay(events.get(cut));
      for (int at = 0; at < size; at++) {
        if (disk.stored[at] < disk.promised[at]) {
          return Optional.of(
              "after event %d, %s: byte %d may be as old as change %d, but %d was promised"
                  .formatted(cut, events.get(cut), at, disk.stored[at], disk.promised[at]));
        }
      }
    }
    return Optional.empty();
  }

  private void replay(FakeDisk.Event event) {
    switch (event) {
      case FakeDisk.Event.Changed(int seq, int op, int offset, int length) -> {
        int[] made = changes.computeIfAbsent(op, any -> new int[last.length]);
        for (int at = offset; at < offset + length; at++) {
          last[at] = seq;
          made[at] = seq;
        }
      }
      case FakeDisk.Event.Stored(int seq, int offset, int length) -> {
        for (int at = offset; at < offset + length; at++) {
          stored[at] = Math.max(stored[at], seq);
        }
      }
      case FakeDisk.Event.SyncBegins(int sync) -> syncs.put(sync, last.clone());
      case FakeDisk.Event.SyncEnds(int sync) -> {
        int[] covered = syncs.remove(sync);
        for (int at = 0; at < last.length; at++) {
          if (covered[at] > lost[at]) {
            stored[at] = Math.max(stored[at], covered[at]);
          }
        }
      }
      case FakeDisk.Event.SyncFails(int sync) -> {
        System.arraycopy(last, 0, lost, 0, last.length);
        syncs.remove(sync);
      }
      case FakeDisk.Event.Answered(int op, int offset, int length, boolean durably) -> {
        int[] made = changes.getOrDefault(op, new int[last.length]);
        for (int at = offset; at < offset + length; at++) {
          answered[at] = Math.max(answered[at], made[at]);
          if (durably) {
            promised[at] = Math.max(promised[at], made[at]);
          }
        }
      }
      case FakeDisk.Event.FlushSent(int flush) -> flushes.put(flush, answered.clone());
      case FakeDisk.Event.FlushAnswered(int flush) -> {
        int[] covered = flushes.remove(flush);
        for (int at = 0; at < last.length; at++) {
          promised[at] = Math.max(promised[at], covered[at]);
        }
      }
    }
  }
}
