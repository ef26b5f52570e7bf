package nbd.check;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.IntPredicate;
import java.util.function.UnaryOperator;
import nbd.check.Step.Kind;

/**
 * A short history to be repeated: steps in the order in which they are sent. Sectors and
 * connections are numbered from 0; the contents are made by whoever runs it, new for each write.
 */
public record Script(List<Step> steps) {
  /** Keeps a copy. */
  public Script {
    steps = List.copyOf(steps);
  }

  /** Makes a script of these steps. */
  public static Script of(Step... steps) {
    return new Script(List.of(steps));
  }

  /** Returns the number of connections that it needs. */
  public int connections() {
    return steps.stream().mapToInt(step -> step.connection() + 1).max().orElse(0);
  }

  /** Returns the number of sectors that it needs. */
  public int sectors() {
    return steps.stream().mapToInt(step -> step.sector() + step.sectors()).max().orElse(0);
  }

  /** Says whether it restarts the server. */
  boolean restarts() {
    return steps.stream().anyMatch(step -> step.kind() == Kind.RESTART);
  }

  /** Returns the steps whose index passes; the kept ones overlap as they did. */
  Script keeping(IntPredicate isKept) {
    List<Step> kept = new ArrayList<>();
    for (int i = 0; i < steps.size(); i++) {
      if (isKept.test(i)) {
        int last = Math.min(steps.size() - 1, i + steps.get(i).overlap());
        int overlap = 0;
        for (int next = i + 1; next <= last; next++) {
          overlap += isKept.test(next) ? 1 : 0;
        }
        kept.add(steps.get(i).overlapping(overlap));
      }
    }
    return new Script(kept);
  }

  /** Changes every step. */
  Script mapping(UnaryOperator<Step> change) {
    return new Script(steps.stream().map(change).toList());
  }

  /** Changes one step. */
  Script mapping(int index, UnaryOperator<Step> change) {
    List<Step> changed = new ArrayList<>(steps);
    changed.set(index, change.apply(steps.get(index)));
    return new Script(changed);
  }

  /** Numbers the connections in the order of their first steps, and leaves out unused sectors. */
  Script renumbered() {
    Map<Integer, Integer> connections = new HashMap<>();
    TreeMap<Integer, Integer> sectors = new TreeMap<>();
    for (Step step : steps) {
      if (step.kind() != Kind.RESTART) {
        connections.putIfAbsent(step.connection(), connections.size());
      }
      for (int i = 0; i < step.sectors(); i++) {
        sectors.put(step.sector() + i, 0);
      }
    }
    int number = 0;
    for (Map.Entry<Integer, Integer> sector : sectors.entrySet()) {
      sector.setValue(number++);
    }
    return mapping(
        step ->
            step.onConnection(connections.getOrDefault(step.connection(), 0))
                .onSectors(sectors.getOrDefault(step.sector(), 0), step.sectors()));
  }
}
