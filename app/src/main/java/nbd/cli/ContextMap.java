package nbd.cli;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import nbd.client.NbdClient;
import nbd.client.StatusExtent;
import nbd.protocol.BaseAllocation;
import nbd.protocol.DirtyBitmap;

/**
 * The extents of an export in one metadata context, in the layout and the words of nbdinfo.
 *
 * @param context the name
 * @param extents consecutive ones from the export's start, each unlike the one before
 */
record ContextMap(String context, List<StatusExtent> extents) {
  /** The most extents of one request. */
  private static final int MOST = 1 << 16;

  private static final String DEPTH = "qemu:allocation-depth";

  /** Asks a server for the whole map. */
  static ContextMap of(NbdClient client, String context) throws IOException {
    List<StatusExtent> extents = new ArrayList<>();
    long size = client.export().size();
    for (long offset = 0; offset < size; ) {
      for (StatusExtent extent : client.status(context, offset, size - offset, MOST)) {
        offset += extent.length();
        boolean merges = !extents.isEmpty() && extents.getLast().status() == extent.status();
        long before = merges ? extents.removeLast().length() : 0;
        extents.add(new StatusExtent(before + extent.length(), extent.status()));
      }
    }
    return new ContextMap(context, extents);
  }

  /** Returns a line for each extent, or JSON. */
  String print(boolean json) {
    StringBuilder rows = new StringBuilder();
    long offset = 0;
    for (StatusExtent extent : extents) {
      rows.append(rows.isEmpty() || !json ? "" : ",\n");
      rows.append(json ? jsonRow(offset, extent) : textRow(offset, extent));
      offset += extent.length();
    }
    return json ? "[\n" + rows + "\n]\n" : rows.toString();
  }

  private String textRow(long offset, StatusExtent extent) {
    String type = Long.toUnsignedString(extent.status());
    String name = description(extent.status()).map("  "::concat).orElse("");
    return String.format(Locale.ROOT, "%10d  %10d  %3s%s%n", offset, extent.length(), type, name);
  }

  private String jsonRow(long offset, StatusExtent extent) {
    String type = Long.toUnsignedString(extent.status());
    String name =
        description(extent.status()).map(", \"description\": \"%s\""::formatted).orElse("");
    return String.format(
        Locale.ROOT,
        "{ \"offset\": %d, \"length\": %d, \"type\": %s%s}",
        offset,
        extent.length(),
        type,
        name);
  }

  /** Returns nbdinfo's words for a status, if it has any. */
  private Optional<String> description(long status) {
    if (context.equals(BaseAllocation.NAME)) {
      return word(status, "data", "hole", "zero", "hole,zero");
    }
    if (context.startsWith(DirtyBitmap.PREFIX)) {
      return word(status, "clean", "dirty");
    }
    if (context.equals(DEPTH)) {
      return word(status, "absent", "local")
          .or(() -> Optional.of("backing depth " + Long.toUnsignedString(status)));
    }
    return Optional.empty();
  }

  private static Optional<String> word(long status, String... words) {
    boolean known = status >= 0 && status < words.length;
    return known ? Optional.of(words[(int) status]) : Optional.empty();
  }
}
