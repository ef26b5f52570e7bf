package nbd.server;

import java.io.IOException;
import java.util.List;
import java.util.Set;
import nbd.protocol.ReplyFormat;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.ListedExport;
import nbd.transmission.OpenExport;

/**
 * The exports that a server offers: one backend under one or more names.
 *
 * @param backend the storage, with its filters
 * @param names all names of the one export; empty if the backend has exports with names of their
 *     own
 * @param description a text for people; if it is empty, the backend's own
 * @param readOnly whether writing is refused
 * @param maxConnections limit on the clients at a time; 0 for none
 */
public record Exports(
    Backend backend, List<String> names, String description, boolean readOnly, int maxConnections) {
  /** Keeps a copy of the names. */
  public Exports {
    names = List.copyOf(names);
  }

  /** Returns false if the name is certainly unknown; only opening it shows that it exists. */
  boolean mayKnow(String name) {
    return names.isEmpty() || names.contains(name);
  }

  /**
   * Lists the exports.
   *
   * @throws nbd.protocol.OptionException if the backend refuses to list them
   * @throws IOException if the backend cannot find out
   */
  List<ListedExport> list() throws IOException {
    return names.isEmpty()
        ? backend.exports().orElse(List.of())
        : names.stream().map(name -> new ListedExport(name, description)).toList();
  }

  /** Opens an export for a client with which nothing else was agreed on. */
  OpenExport open(String name) throws IOException {
    Handle handle = backend.open(name, readOnly);
    String described = description.isEmpty() ? handle.facts().description() : description;
    return new OpenExport(name, described, handle, ReplyFormat.SIMPLE, Set.of());
  }
}
