package nbd.multiconn;

import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executor;
import nbd.storage.Handle;

/**
 * The group of each connection: one for each export name, or one for all.
 *
 * <p><b>Locks.</b> The map is striped: a change locks the bin of the group's name, for the look-up
 * only. Each group has a lock of its own for its contents ({@link Group}), which may be taken while
 * a bin is locked, and not the other way round. Neither is held while a backend is called or a
 * thread waits, so no group waits for another one's backend. Marking a read or a write takes
 * neither.
 *
 * <p><b>Invariant.</b> A group is in the map while it has connections, or remembers something that
 * a later connection's flush has to report.
 */
final class ConnectionTable {
  private final MultiConnSettings settings;
  private final Executor executor;
  private final ConcurrentHashMap<String, Group> groups = new ConcurrentHashMap<>();

  ConnectionTable(MultiConnSettings settings, Executor executor) {
    this.settings = settings;
    this.executor = executor;
  }

  /** Adds a connection to its group; closing the handle that is returned takes it out again. */
  Handle enter(Handle handle, String exportName, Decision decision) {
    Group group =
        groups.compute(
            groupName(exportName),
            (name, present) -> {
              Group entered = present == null ? new Group(settings, executor) : present;
              entered.connections++;
              return entered;
            });
    boolean attached = false;
    try (var _ = group.locked()) {
      FlushScope scope = group.scopeFor(exportName, handle.facts().identity(), decision);
      Member member = new Member(handle, decision, scope);
      Handle made = new MultiConnHandle(handle, member, () -> leave(exportName));
      group.attach(member);
      attached = true;
      return made;
    } finally {
      if (!attached) {
        leave(exportName);
      }
    }
  }

  /** Forgets a connection that has been detached from its group. */
  private void leave(String exportName) {
    groups.computeIfPresent(
        groupName(exportName),
        (name, group) -> --group.connections == 0 && group.isForgettable() ? null : group);
  }

  /** The number of groups that are remembered. */
  int size() {
    return groups.size();
  }

  private String groupName(String exportName) {
    return settings.byExportName() ? exportName : "";
  }
}
