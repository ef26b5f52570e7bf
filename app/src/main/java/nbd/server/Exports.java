package nbd.server;

import java.io.IOException;
import java.util.List;
import nbd.protocol.ReplyFormat;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.ListedExport;
import nbd.transmission.OpenExport;

/**
 * What is served: one backend under one or more names.
 *
 * @param backend the storage, with its filters
 * @param names the names under which it is served; no other name is known. None: the backend has
 *     names of its own
 * @param description a text for people; if it is empty, the backend's own
 * @param readOnly whether writing is refused
 * @param maxConnections how many clients there may be at a time; 0 for any number
 */
public record Exports(
    Backend backend, List<String> names, String description, boolean readOnly, int maxConnections) {
  /** Keeps a copy of the names. */
  public Exports {
    names = List.copyOf(names);
  }

  /** False if no export has this name; where true, only opening it tells whether one has. */
  boolean mayKnow(String name) {
    return names.isEmpty() || names.contains(name);
  }

  /**
   * The exports, for a client that asks.
   *
   * @throws nbd.protocol.OptionException if the backend is not willing to tell
   * @throws IOException if the backend could not find out
   */
  List<ListedExport> list() throws IOException {
    return names.isEmpty()
        ? backend.exports().orElse(List.of())
        : names.stream().map(name -> new ListedExport(name, description)).toList();
  }

  /** Opens an export that is known, for a client with which nothing else was agreed on. */
  OpenExport open(String name) throws IOException {
    Handle handle = backend.open(name, readOnly);
    String described = description.isEmpty() ? handle.facts().description() : description;
    return new OpenExport(name, described, handle, ReplyFormat.SIMPLE, false);
  }
}
