package nbd.server;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReplyType;
import nbd.protocol.Printable;
import nbd.storage.Backend;
import nbd.storage.ListedExport;
import nbd.transmission.OpenExport;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The exports that a server offers, by their names. They may change while it runs: adding or
 * removing one touches no connection of another. Any thread may call any method.
 *
 * <p>At most one of them has storage that names its exports itself; it answers for all names that
 * no other export has.
 */
public final class Exports {
  private final int maxConnections;

  /** Guards the fields below. No call that waits is made under it; exports' locks are below it. */
  private final ReentrantLock lock = new ReentrantLock();

  /** Those that clients find, in the order in which they were added. */
  private final Map<String, Export> byName = new LinkedHashMap<>();

  /** The one whose storage names its exports itself. */
  private @Nullable Export ownNames;

  /** All whose storage is not closed yet, also those that were removed. */
  private final Set<Export> open = new LinkedHashSet<>();

  private boolean stopping;

  /**
   * Begins without exports.
   *
   * @param maxConnections limit on the clients of all exports at a time; 0 for none
   */
  public Exports(int maxConnections) {
    this.maxConnections = maxConnections;
  }

  /**
   * Begins with one backend under one or more names.
   *
   * @param backend the storage, with its filters
   * @param names all names of the one export; empty if the backend has exports with names of their
   *     own
   * @param description a text for people; if it is empty, the backend's own
   * @param readOnly whether writing is refused
   * @param maxConnections limit on the clients at a time; 0 for none
   */
  public Exports(
      Backend backend,
      List<String> names,
      String description,
      boolean readOnly,
      int maxConnections) {
    this(maxConnections);
    add(new Export(backend, names, new Export.Settings(description, readOnly)));
  }

  /** Returns the limit on the clients of all exports at a time; 0 for none. */
  int maxConnections() {
    return maxConnections;
  }

  /**
   * Adds an export, which clients find from now on.
   *
   * @throws IllegalArgumentException if one of its names is taken; the message is for the user
   * @throws IllegalStateException if the server stops; the message is for the user
   */
  public void add(Export export) {
    lock.lock();
    try {
      if (stopping) {
        throw new IllegalStateException("the server stops");
      }
      for (String name : export.names()) {
        if (byName.containsKey(name)) {
          throw new IllegalArgumentException(
              "there is already an export \"" + Printable.name(name) + "\"");
        }
      }
      if (export.names().isEmpty()) {
        if (ownNames != null) {
          throw new IllegalArgumentException(
              "there is already storage that names its exports itself");
        }
        ownNames = export;
      }
      export.names().forEach(name -> byName.put(name, export));
      // Some were closed by the last client that left them, long after they were removed.
      open.removeIf(Export::isClosed);
      open.add(export);
    } finally {
      lock.unlock();
    }
  }

  /** Finds the export that has exactly this name; storage that names exports itself has none. */
  public Optional<Export> find(String name) {
    lock.lock();
    try {
      return Optional.ofNullable(byName.get(name));
    } finally {
      lock.unlock();
    }
  }

  /** Returns the exports that clients find, in the order in which they were added. */
  public List<Export> all() {
    lock.lock();
    try {
      Set<Export> all = new LinkedHashSet<>();
      if (ownNames != null) {
        all.add(ownNames);
      }
      all.addAll(byName.values());
      return List.copyOf(all);
    } finally {
      lock.unlock();
    }
  }

  /**
   * Removes exports. Clients do not find them any more; the connections to them are ended when the
   * requests that they have sent are answered, and then their storage is closed. A failure of the
   * storage is logged.
   *
   * @param removed those of them that another thread has removed are left to it
   * @param patience after which clients that are still there are cut
   * @return whether the storage of all is closed, without a failure
   */
  public boolean remove(Collection<Export> removed, Duration patience) {
    List<Export> mine = new ArrayList<>();
    lock.lock();
    try {
      for (Export export : removed) {
        if (byName.values().removeAll(Set.of(export))) {
          mine.add(export);
        }
      }
    } finally {
      lock.unlock();
    }
    mine.forEach(Export::retire);
    boolean well = mine.size() == removed.size();
    for (Export export : mine) {
      well &= awaitClosed(export, patience);
    }
    return well;
  }

  private boolean awaitClosed(Export export, Duration patience) {
    boolean closed = true;
    try {
      closed = export.awaitClosed(patience);
      if (!closed) {
        Logger.warn(
            "export {}: its storage does not answer a client's request, and stays open until then",
            export.words());
      }
      return closed;
    } catch (IOException failure) {
      Logger.error(failure, "export {}: {}", export.words(), failure.getMessage());
      return false;
    } finally {
      if (closed) {
        forget(export);
      }
    }
  }

  private void forget(Export export) {
    lock.lock();
    try {
      open.remove(export);
    } finally {
      lock.unlock();
    }
  }

  /**
   * Announces that the server stops: no export can be added any more, and no operation waits for
   * storage to come back. Does not wait.
   */
  public void stopWaiting() {
    for (Export export : stillOpen(true)) {
      export.backend().stopWaiting();
    }
  }

  /** Returns the exports to close when the server has stopped, also those that were removed. */
  public List<Export> stillOpen() {
    return stillOpen(false);
  }

  private List<Export> stillOpen(boolean last) {
    lock.lock();
    try {
      stopping |= last;
      return List.copyOf(open);
    } finally {
      lock.unlock();
    }
  }

  /** Returns false if the name is certainly unknown; only opening it shows that it exists. */
  public boolean mayKnow(String name) {
    lock.lock();
    try {
      return ownNames != null || byName.containsKey(name);
    } finally {
      lock.unlock();
    }
  }

  /**
   * Lists the exports that can be opened: clients that look at all would fail at others.
   *
   * @throws nbd.protocol.OptionException if the backend refuses to list them
   * @throws IOException if the backend cannot find out
   */
  List<ListedExport> list() throws IOException {
    Export own;
    Map<String, Export> named;
    lock.lock();
    try {
      own = ownNames;
      named = new LinkedHashMap<>(byName);
    } finally {
      lock.unlock();
    }
    List<ListedExport> list = new ArrayList<>();
    named.forEach(
        (name, export) -> {
          if (export.isServing()) {
            list.add(new ListedExport(name, export.description()));
          }
        });
    if (own != null) {
      own.backend().exports().orElse(List.of()).stream()
          .filter(listed -> !named.containsKey(listed.name()))
          .forEach(list::add);
    }
    return list;
  }

  /**
   * Opens an export for a client with which nothing else was agreed on.
   *
   * @param client the connection, which is ended with the export
   * @throws OptionException if there is no such export (any more), or it is drained
   * @throws IOException if the storage failed
   */
  OpenExport open(String name, Export.Client client) throws IOException {
    Export found;
    lock.lock();
    try {
      found = byName.getOrDefault(name, ownNames);
    } finally {
      lock.unlock();
    }
    if (found == null) {
      throw new OptionException(OptionReplyType.ERR_UNKNOWN, "the export was removed");
    }
    return found.open(name, client);
  }
}
