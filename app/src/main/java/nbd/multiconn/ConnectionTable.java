package nbd.multiconn;

import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.Executor;
import java.util.concurrent.locks.ReentrantLock;
import nbd.storage.Handle;

/**
 * Which group each connection belongs to.
 *
 * <p><b>Striping.</b> Groups are spread over {@value #STRIPES} stripes by the hash of their name. A
 * stripe's lock guards its map, and how many connections each of its groups has; it is held for the
 * look-up only. Each group has a lock of its own for all that is in it ({@link Group}).
 *
 * <p><b>Order.</b> A stripe's lock, then the lock of one of its groups; never two stripes, never
 * two groups. Neither is held while a backend is called or anything is waited for, so no group
 * waits for another one's backend. A handle's marks take neither.
 *
 * <p><b>Invariant of a stripe's lock.</b> A group is in the map while it has connections, or
 * remembers something that a later connection has to be told.
 */
final class ConnectionTable {
  private static final int STRIPES = 32;

  private final MultiConnSettings settings;
  private final Executor executor;
  private final Stripe[] stripes = new Stripe[STRIPES];

  /** Groups of one name's hash. */
  private static final class Stripe {
    final ReentrantLock lock = new ReentrantLock();
    final Map<String, Entry> groups = new HashMap<>();
  }

  /** A group and its connections. */
  private static final class Entry {
    final Group group;
    int connections;

    Entry(Group group) {
      this.group = group;
    }
  }

  ConnectionTable(MultiConnSettings settings, Executor executor) {
    this.settings = settings;
    this.executor = executor;
    for (int i = 0; i < STRIPES; i++) {
      stripes[i] = new Stripe();
    }
  }

  /** Adds a connection. */
  Member enter(Handle handle, String exportName, Decision decision) {
    String key = groupName(exportName);
    Stripe stripe = stripe(key);
    Group group;
    stripe.lock.lock();
    try {
      Entry entry =
          stripe.groups.computeIfAbsent(key, name -> new Entry(new Group(settings, executor)));
      entry.connections++;
      group = entry.group;
    } finally {
      stripe.lock.unlock();
    }
    boolean attached = false;
    group.lock.lock();
    try {
      FlushScope scope = group.scopeFor(exportName, handle.facts().identity(), decision);
      Member member = new Member(handle, decision, scope);
      group.attach(member);
      attached = true;
      return member;
    } finally {
      group.lock.unlock();
      if (!attached) {
        leave(exportName);
      }
    }
  }

  /** Forgets a connection that has been detached from its group. */
  void leave(String exportName) {
    String key = groupName(exportName);
    Stripe stripe = stripe(key);
    stripe.lock.lock();
    try {
      Entry entry = stripe.groups.get(key);
      if (entry != null && --entry.connections == 0 && isForgettable(entry.group)) {
        stripe.groups.remove(key);
      }
    } finally {
      stripe.lock.unlock();
    }
  }

  /** How many groups are remembered. */
  int size() {
    int size = 0;
    for (Stripe stripe : stripes) {
      stripe.lock.lock();
      try {
        size += stripe.groups.size();
      } finally {
        stripe.lock.unlock();
      }
    }
    return size;
  }

  private static boolean isForgettable(Group group) {
    group.lock.lock();
    try {
      return group.isForgettable();
    } finally {
      group.lock.unlock();
    }
  }

  private String groupName(String exportName) {
    return settings.byExportName() ? exportName : "";
  }

  private Stripe stripe(String key) {
    int hash = key.hashCode();
    return stripes[(hash ^ (hash >>> 16)) & (STRIPES - 1)];
  }
}
