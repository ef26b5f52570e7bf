package nbd.multiconn;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import nbd.multiconn.FlushScope.Need;
import nbd.protocol.NbdException;
import nbd.storage.LostException;
import nbd.storage.LostWritesException;

/**
 * One flush that a client sent, or that stands for FUA: chooses the backend flushes that it needs
 * in its connection's mode, and waits for them.
 *
 * <p>In the mode emulate it reports the losses of all connections of the group; elsewhere, where a
 * flush of the storage covers all connections to the export, the losses of these; where it covers
 * this connection's handle only, nothing but this handle's own.
 */
final class ClientFlush {
  private final Member caller;
  private final Group group;
  private final boolean forFua;
  private final List<IOException> failures = new ArrayList<>();

  ClientFlush(Member caller, boolean forFua) {
    this.caller = caller;
    this.group = caller.scope.group;
    this.forFua = forFua;
  }

  /** Throws the first failure, with the others suppressed, when everything has been tried. */
  void run() throws IOException {
    if (caller.decision.mode() == MultiConnMode.EMULATE) {
      flushGroup();
    } else if (group.settings.tracking() == TrackDirty.OFF) {
      passOn();
    } else {
      flushOwn();
    }
    addLosses();
    if (!failures.isEmpty()) {
      NbdException thrown = NbdException.copyOf(failures.getFirst());
      failures.stream().skip(1).forEach(thrown::addSuppressed);
      throw thrown;
    }
  }

  private void flushGroup() {
    TrackDirty tracking = group.settings.tracking();
    boolean passesAllOn = tracking == TrackDirty.OFF;
    List<FlushRound> writers = new ArrayList<>();
    Set<FlushScope> asked = new HashSet<>();
    try (var _ = group.locked()) {
      group.drainInboxes();
      for (FlushScope scope : group.dirtyScopes) {
        writers.add(request(scope, passesAllOn ? Need.OWN : Need.WRITES));
        asked.add(scope);
      }
    }
    FlushRound.runAndAwait(writers, failures);

    boolean all = passesAllOn || (tracking == TrackDirty.FAST && !writers.isEmpty());
    List<FlushRound> readers = new ArrayList<>();
    try (var _ = group.locked()) {
      group.drainInboxes();
      Set<FlushScope> outdated = group.outdated();
      for (FlushScope scope : all ? group.scopes : outdated) {
        if (passesAllOn && !asked.contains(scope)) {
          readers.add(request(scope, Need.OWN));
        } else if (outdated.contains(scope)) {
          readers.add(request(scope, Need.REFRESH));
        } else if (!asked.contains(scope)) {
          readers.add(request(scope, Need.ANY));
        }
      }
    }
    FlushRound.runAndAwait(readers, failures);
  }

  /** Flushes the connection's own scope only, if that is needed. */
  private void flushOwn() {
    List<FlushRound> rounds = new ArrayList<>();
    try (var _ = group.locked()) {
      group.drainInboxes();
      if (needsStart()) {
        rounds.add(request(caller.scope, Need.START));
      } else if (caller.scope.isDirty()) {
        rounds.add(request(caller.scope, Need.WRITES));
      }
    }
    FlushRound.runAndAwait(rounds, failures);
  }

  /** Says whether a flush has to start even if this connection's writes are covered. */
  private boolean needsStart() {
    boolean unsafe =
        caller.decision.mode() == MultiConnMode.UNSAFE
            && group.settings.tracking() == TrackDirty.CONNECTION
            && group.hasWrittenSincePassedOn();
    return unsafe || (!caller.decision.sharesFlush() && mayBeOutdated());
  }

  /**
   * Says whether this handle may hold older data: it has read, and others may have written since.
   * Uncovered writes of other handles count, since storage may make them visible at any time.
   */
  private boolean mayBeOutdated() {
    if (!caller.reads.any()) {
      return false;
    }
    int others = group.dirtyScopes.size() - (group.dirtyScopes.contains(caller.scope) ? 1 : 0);
    return others > 0 || caller.scope.isOutdated();
  }

  /** Adds the losses that this flush has to report: found before it, or during it. */
  private void addLosses() {
    try (var _ = group.locked()) {
      if (caller.broken != null) {
        failures.addFirst(caller.broken);
      }
      if (caller.decision.mode() == MultiConnMode.EMULATE) {
        failures.addAll(group.losses.report(caller.reported, forFua));
      } else if (caller.decision.sharesFlush()) {
        group.abandonBroken(caller.scope.exportName);
        failures.addAll(group.losses.report(caller.reported, caller.scope.exportName, forFua));
      }
    }
  }

  /**
   * Without tracking: flushes this handle, whatever else runs. If that does not cover all of the
   * scope, because some of it may have been written to an earlier start of the server, the scope is
   * flushed besides.
   */
  private void passOn() {
    boolean coversAll;
    Map<Member, Long> counts;
    try (var _ = group.locked()) {
      group.drainInboxes();
      coversAll = caller.scope.isCoveredBy(caller);
      counts =
          coversAll ? caller.scope.completedWrites() : Map.of(caller, caller.writes.completed());
    }
    IOException failure = null;
    try {
      caller.handle.flush();
    } catch (IOException e) {
      failure = e;
    }
    try (var _ = group.locked()) {
      switch (failure) {
        case null -> caller.scope.cover(counts, caller);
        case LostException lost -> group.abandon(caller, lost);
        case LostWritesException lost -> {
          group.recordLoss(caller.scope, lost);
          failures.add(lost);
        }
        default -> failures.add(failure);
      }
    }
    if (failure == null && !coversAll) {
      flushOwn();
    }
  }

  private FlushRound request(FlushScope scope, Need need) {
    return scope.request(
        need, scope == caller.scope ? caller : scope.members.firstEntry().getValue());
  }
}
