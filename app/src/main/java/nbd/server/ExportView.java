package nbd.server;

import java.io.IOException;
import java.util.List;
import java.util.Optional;
import nbd.protocol.Printable;
import nbd.storage.ListedExport;
import nbd.transmission.OpenExport;

/**
 * The exports that the clients of one listening socket find.
 *
 * @param all those of the server
 * @param only the name of the only one that they find, which also has the empty name there
 */
record ExportView(Exports all, Optional<String> only) {
  /** Shows all. */
  ExportView(Exports all) {
    this(all, Optional.empty());
  }

  /** Returns the name under which the other methods know an export that a client asks for. */
  String resolve(String asked) {
    return asked.isEmpty() ? only.orElse("") : asked;
  }

  private boolean shows(String name) {
    return only.isEmpty() || only.get().equals(name);
  }

  /** Returns false if the name is certainly unknown; only opening it shows that it exists. */
  boolean mayKnow(String name) {
    return shows(name) && all.mayKnow(name);
  }

  /** Says that a name is unknown. */
  String unknown(String name) {
    String where = shows(name) ? "" : " on this socket";
    return "there is no export \"" + Printable.name(name) + "\"" + where;
  }

  /** Does what {@link Exports#list} does; a single export does not depend on others' storage. */
  List<ListedExport> list() throws IOException {
    Optional<Export> single = only.flatMap(all::find);
    if (single.isPresent()) {
      return single.filter(Export::isServing).stream()
          .map(export -> new ListedExport(resolve(""), export.description()))
          .toList();
    }
    return all.list().stream().filter(each -> shows(each.name())).toList();
  }

  /** Opens an export that {@link #mayKnow} does not rule out, as {@link Exports#open} does. */
  OpenExport open(String name, Export.Client client) throws IOException {
    return all.open(name, client);
  }
}
