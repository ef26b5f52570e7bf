package nbd.server;

import java.io.IOException;
import java.util.List;
import nbd.backend.Backend;
import nbd.backend.Handle;

/**
 * What is served: one backend under one or more names.
 *
 * @param backend the storage, with its filters
 * @param names the names under which it is served; no other name is known
 * @param description a text for people; may be empty
 * @param readOnly whether writing is refused
 * @param maxConnections how many clients there may be at a time; 0 for any number
 */
public record Exports(
    Backend backend, List<String> names, String description, boolean readOnly, int maxConnections) {
  /** Keeps a copy of the names. */
  public Exports {
    names = List.copyOf(names);
  }

  /** Whether there is an export of this name. */
  boolean knows(String name) {
    return names.contains(name);
  }

  /** Opens an export that is known, and says what of it the client is told. */
  OpenExport open(String name) throws IOException {
    Handle handle = backend.open(name, readOnly);
    return new OpenExport(name, description, handle, Advertised.of(handle.capabilities()));
  }
}
