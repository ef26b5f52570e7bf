package nbd.cli;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.Printable;
import nbd.server.Export;
import nbd.server.Exports;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The exports that the user defines, at the start and while the server runs. One change is made at
 * a time; any thread may ask for one.
 */
final class ExportChanges {
  private final Exports exports;
  private final ExportParser parser;
  private final @Nullable Path config;
  private final Limits limits;
  private final Optional<StatisticsReport> report;

  /** Held during a change. */
  private final ReentrantLock lock = new ReentrantLock();

  /** The definitions of all that were opened by this object. */
  private final Map<Export, ExportDefinition> definitions = new HashMap<>();

  /** The exports of the file, by their names. */
  private Map<String, Export> configured = new LinkedHashMap<>();

  /** The limits that all exports share. */
  interface Limits {
    /** The limit on the clients of the server; 0 for none. */
    int maxConnections();

    /**
     * Throws a {@link UsageException} if caches may not have so much memory.
     *
     * @param bytes the memory of the caches of all definitions
     */
    void checkCaches(long bytes);
  }

  /**
   * Begins without definitions.
   *
   * @param config the file, if there is one
   */
  ExportChanges(
      Exports exports,
      ExportParser parser,
      @Nullable Path config,
      Limits limits,
      Optional<StatisticsReport> report) {
    this.exports = exports;
    this.parser = parser;
    this.config = config;
    this.limits = limits;
    this.report = report;
  }

  /**
   * Adds the exports of the command line and of the file, at the start.
   *
   * @param arguments each NAME=BACKEND
   * @throws UsageException if something is wrong
   * @throws IOException if one cannot be opened; the message is for the user
   */
  void start(List<ExportDefinition> arguments) throws IOException {
    lock.lock();
    try {
      List<ExportDefinition> all = new ArrayList<>(arguments);
      Map<String, ExportDefinition> file = read();
      all.addAll(file.values());
      limits.checkCaches(caches(all));
      for (ExportDefinition definition : arguments) {
        add(definition);
      }
      for (ExportDefinition definition : file.values()) {
        configured.put(definition.name(), add(definition));
      }
    } finally {
      lock.unlock();
    }
  }

  private Map<String, ExportDefinition> read() throws IOException {
    return config == null ? Map.of() : ConfigFile.read(config, parser);
  }

  private static long caches(Iterable<ExportDefinition> definitions) {
    long bytes = 0;
    for (ExportDefinition definition : definitions) {
      long more = definition.options().cacheBytes();
      bytes = bytes > Long.MAX_VALUE - more ? Long.MAX_VALUE : bytes + more;
    }
    return bytes;
  }

  private Export add(ExportDefinition definition) throws IOException {
    refuseTaken(definition, null);
    try {
      ExportOptions options = definition.options();
      FilterStack stack =
          options.open(
              definition.backend(),
              report.map(all -> all.part(definition.name(), options.cacheBytes() > 0)),
              limits.maxConnections());
      boolean added = false;
      try {
        Export export =
            options.export(
                definition.backend(), stack, List.of(definition.name()), stack.maxConnections(0));
        exports.add(export);
        added = true;
        definitions.put(export, definition);
        return export;
      } finally {
        if (!added) {
          stack.backend().close();
        }
      }
    } catch (UsageException wrong) {
      throw new UsageException(definition.origin() + ": " + wrong.getMessage());
    } catch (IOException failure) {
      throw new IOException(definition.origin() + ": " + Failure.words(failure), failure);
    }
  }

  /** Refuses a definition whose name an export has that is not the given one. */
  private void refuseTaken(ExportDefinition definition, @Nullable Export replaced) {
    Optional<Export> present = exports.find(definition.name());
    UsageException.refuseIf(
        present.isPresent() && !present.get().equals(replaced),
        "%s: there is already an export \"%s\""
            .formatted(definition.origin(), Printable.name(definition.name())));
  }

  /**
   * Adds an export.
   *
   * @param argument NAME=BACKEND
   * @throws UsageException if it is wrong; the message is for the user
   * @throws IOException if it cannot be opened; the message is for the user
   */
  void add(String argument) throws IOException {
    lock.lock();
    try {
      forgetRemoved();
      ExportDefinition definition = parser.parse("export", argument);
      List<ExportDefinition> all = new ArrayList<>(definitions.values());
      all.add(definition);
      limits.checkCaches(caches(all));
      Export added = add(definition);
      Logger.info("export {} is added on a request", added.words());
    } finally {
      lock.unlock();
    }
  }

  private void forgetRemoved() {
    definitions.keySet().retainAll(Set.copyOf(exports.all()));
  }

  /**
   * Reads the file again: removes exports that are gone, adds new ones, and replaces those that
   * have changed. Others are not touched, except that those that are drained serve again. If
   * something in the file is wrong, nothing is changed; an export that cannot be opened is logged,
   * and is missing.
   *
   * @return what has been done, in words
   * @throws IOException if the file is wrong, or an export could not be opened or closed; the
   *     message is for the user
   */
  String reload() throws IOException {
    lock.lock();
    try {
      forgetRemoved();
      Map<String, ExportDefinition> wanted = read();
      for (ExportDefinition definition : wanted.values()) {
        refuseTaken(definition, configured.get(definition.name()));
      }
      Map<String, Export> kept = new LinkedHashMap<>();
      List<Export> gone = new ArrayList<>();
      configured.forEach(
          (name, export) -> {
            ExportDefinition before = definitions.get(export);
            ExportDefinition after = wanted.get(name);
            if (before != null && after != null && before.words().equals(after.words())) {
              kept.put(name, export);
            } else if (before != null) {
              gone.add(export);
            }
          });
      List<ExportDefinition> fresh =
          wanted.values().stream().filter(each -> !kept.containsKey(each.name())).toList();
      checkCaches(gone, fresh);
      return change(kept, gone, fresh);
    } catch (UsageException wrong) {
      throw new IOException("nothing is changed: " + wrong.getMessage(), wrong);
    } finally {
      lock.unlock();
    }
  }

  private void checkCaches(List<Export> gone, List<ExportDefinition> fresh) {
    List<ExportDefinition> all = new ArrayList<>(fresh);
    definitions.forEach(
        (export, definition) -> {
          if (!gone.contains(export)) {
            all.add(definition);
          }
        });
    limits.checkCaches(caches(all));
  }

  private String change(Map<String, Export> kept, List<Export> gone, List<ExportDefinition> fresh)
      throws IOException {
    List<String> failures = new ArrayList<>();
    if (!exports.remove(gone, Service.PATIENCE)) {
      failures.add("the storage of an export is not closed well");
    }
    exports.all().forEach(Export::resume);
    configured = new LinkedHashMap<>(kept);
    int added = 0;
    for (ExportDefinition definition : fresh) {
      try {
        configured.put(definition.name(), add(definition));
        added++;
      } catch (IOException | UsageException | IllegalStateException failure) {
        failures.add(String.valueOf(failure.getMessage()));
      }
    }
    String done =
        "exports removed: %d, added: %d, untouched: %d".formatted(gone.size(), added, kept.size());
    if (!failures.isEmpty()) {
      throw new IOException(done + "; " + String.join("; ", failures));
    }
    return done;
  }
}
