package nbd.transmission;

import java.io.IOException;
import java.util.Collections;
import java.util.EnumSet;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;
import nbd.protocol.Printable;
import nbd.protocol.ReplyFormat;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Handle;

/**
 * An export that one connection has opened, and the agreements of server and client about it. It is
 * closed once, by the thread that uses it.
 *
 * @param name the one that the client asked for
 * @param description a text for people; may be empty
 * @param handle the connection's own
 * @param format the form of replies
 * @param contexts the metadata contexts that the client has selected, in the order of the enum
 * @param left run once, after the handle was closed
 */
public record OpenExport(
    String name,
    String description,
    Handle handle,
    ReplyFormat format,
    Set<MetaContext> contexts,
    Runnable left)
    implements AutoCloseable {
  /** Keeps a copy of the contexts. */
  public OpenExport {
    EnumSet<MetaContext> kept = EnumSet.noneOf(MetaContext.class);
    kept.addAll(contexts);
    contexts = Collections.unmodifiableSet(kept);
  }

  /** Describes one that nobody waits for. */
  public OpenExport(
      String name,
      String description,
      Handle handle,
      ReplyFormat format,
      Set<MetaContext> contexts) {
    this(name, description, handle, format, contexts, () -> {});
  }

  /** Closes the handle. */
  @Override
  public void close() throws IOException {
    try {
      handle.close();
    } finally {
      left.run();
    }
  }

  /**
   * Returns the same export with other agreements.
   *
   * @param selected the names of contexts; those that the handle does not have are left out
   */
  public OpenExport agreed(ReplyFormat newFormat, Set<String> selected) {
    EnumSet<MetaContext> had = EnumSet.allOf(MetaContext.class);
    had.removeIf(context -> nameOf(context).filter(selected::contains).isEmpty());
    return new OpenExport(name, description, handle, newFormat, had, left);
  }

  /** Returns the names of the contexts, as the client knows them. */
  public Set<String> contextNames() {
    return contexts.stream()
        .flatMap(context -> nameOf(context).stream())
        .collect(Collectors.toSet());
  }

  private Optional<String> nameOf(MetaContext context) {
    return context.name(handle.facts().dirtyBitmap());
  }

  /** Returns the transmission flags that offer all that the handle can do, and the agreements. */
  public Set<TransmissionFlag> flags() {
    Set<TransmissionFlag> flags = handle.capabilities().flags();
    if (format.hasChunks()) {
      flags.add(TransmissionFlag.SEND_DF);
    }
    if (!contexts.isEmpty() && format == ReplyFormat.EXTENDED) {
      flags.add(TransmissionFlag.BLOCK_STATUS_PAYLOAD);
    }
    return flags;
  }

  /** Describes the agreements and flags for the log. */
  public String offer() {
    String names =
        flags().stream()
            .map(flag -> flag.name().toLowerCase(Locale.ROOT).replace('_', '-'))
            .collect(Collectors.joining(", "));
    String selected =
        contexts.stream()
            .flatMap(context -> nameOf(context).stream())
            .map(context -> Printable.name(context) + ", ")
            .collect(Collectors.joining());
    return "%s replies, %sflags: %s"
        .formatted(format.name().toLowerCase(Locale.ROOT), selected, names);
  }
}
