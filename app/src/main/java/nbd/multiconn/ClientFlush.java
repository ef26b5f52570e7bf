package nbd.multiconn;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import nbd.multiconn.FlushScope.Need;
import nbd.storage.LostException;
import nbd.storage.LostWritesException;

/**
 * A flush that a client sent, or that a command with FUA became: what it needs in its connection's
 * mode, and the waiting for that.
 *
 * <p>In the mode emulate it reports what any connection of the group has lost; elsewhere, where the
 * flush of the storage covers all connections to the export, what one of these has lost; where it
 * covers this connection's handle only, nothing but what this handle itself has lost.
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

  void run() throws IOException {
    if (caller.decision.mode() == MultiConnMode.EMULATE) {
      flushGroup();
    } else if (group.settings.tracking() == TrackDirty.OFF) {
      passOn();
    } else {
      flushOwn();
    }
    addLosses();
    Failures.throwAny(failures);
  }

  private void flushGroup() {
    boolean passesAllOn = group.settings.tracking() == TrackDirty.OFF;
    List<FlushRound> writers = new ArrayList<>();
    Set<FlushScope> asked = new HashSet<>();
    boolean all;
    group.lock.lock();
    try {
      group.drainInboxes();
      for (FlushScope scope : group.dirtyScopes) {
        writers.add(request(scope, passesAllOn ? Need.OWN : Need.WRITES));
        asked.add(scope);
      }
      all = passesAllOn || (group.settings.tracking() == TrackDirty.FAST && !writers.isEmpty());
    } finally {
      group.lock.unlock();
    }
    await(writers);

    List<FlushRound> readers = new ArrayList<>();
    group.lock.lock();
    try {
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
    } finally {
      group.lock.unlock();
    }
    await(readers);
  }

  /** For the connection's own scope only. */
  private void flushOwn() {
    List<FlushRound> requests = new ArrayList<>();
    group.lock.lock();
    try {
      group.drainInboxes();
      if (needsStart()) {
        requests.add(request(caller.scope, Need.START));
      } else if (caller.scope.isDirty()) {
        requests.add(request(caller.scope, Need.WRITES));
      }
    } finally {
      group.lock.unlock();
    }
    await(requests);
  }

  /** Whether a flush has to start even if this connection's writes are covered. */
  private boolean needsStart() {
    boolean unsafe =
        caller.decision.mode() == MultiConnMode.UNSAFE
            && group.settings.tracking() == TrackDirty.CONNECTION
            && group.hasWrittenSincePassedOn();
    return unsafe || (!caller.decision.sharesFlush() && mayBeOutdated());
  }

  /**
   * Whether this handle has read and others have written since. Nobody says when the writes of
   * another handle become visible that it has not flushed, so they count.
   */
  private boolean mayBeOutdated() {
    if (!caller.reads.any()) {
      return false;
    }
    int others = group.dirtyScopes.size() - (group.dirtyScopes.contains(caller.scope) ? 1 : 0);
    return others > 0 || caller.scope.isOutdated();
  }

  /** What no flush can cover, though this one would have to: found out during it, or before. */
  private void addLosses() {
    group.lock.lock();
    try {
      if (caller.broken != null) {
        failures.addFirst(caller.broken);
      }
      if (caller.decision.mode() == MultiConnMode.EMULATE) {
        failures.addAll(group.losses.report(caller.reported, forFua));
      } else if (caller.decision.sharesFlush()) {
        group.abandonBroken(caller.scope.exportName);
        failures.addAll(group.losses.report(caller.reported, caller.scope.exportName, forFua));
      }
    } finally {
      group.lock.unlock();
    }
  }

  /**
   * Without tracking: this flush, on this handle, whatever else runs. What it does not cover,
   * though the storage promises so, since it may have been written to another server, is flushed
   * besides.
   */
  private void passOn() {
    List<Member> written = new ArrayList<>();
    List<Long> counts = new ArrayList<>();
    boolean coversAll;
    group.lock.lock();
    try {
      group.drainInboxes();
      coversAll = caller.scope.isCoveredBy(caller);
      for (Member member : coversAll ? caller.scope.dirty : List.of(caller)) {
        written.add(member);
        counts.add(member.writes.completed());
      }
    } finally {
      group.lock.unlock();
    }
    try {
      caller.handle.flush();
    } catch (LostException lost) {
      abandonCaller(lost);
      return;
    } catch (LostWritesException lost) {
      group.recordLoss(caller.scope, lost);
      failures.add(lost);
      return;
    } catch (IOException e) {
      failures.add(e);
      return;
    }
    group.lock.lock();
    try {
      for (int i = 0; i < written.size(); i++) {
        group.cover(written.get(i), counts.get(i), caller);
        group.settleWrites(written.get(i));
      }
      group.settle(caller.scope);
    } finally {
      group.lock.unlock();
    }
    if (!coversAll) {
      flushOwn();
    }
  }

  private void abandonCaller(LostException lost) {
    group.lock.lock();
    try {
      group.abandon(caller, lost);
    } finally {
      group.lock.unlock();
    }
  }

  private FlushRound request(FlushScope scope, Need need) {
    return scope.request(
        need, scope == caller.scope ? caller : scope.members.firstEntry().getValue());
  }

  private void await(List<FlushRound> rounds) {
    FlushRound.runAndAwait(group, rounds, failures);
  }
}
