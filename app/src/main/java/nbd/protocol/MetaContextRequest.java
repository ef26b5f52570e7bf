package nbd.protocol;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import nbd.protocol.ExportRequest.MalformedException;

/**
 * The data of LIST_META_CONTEXT and SET_META_CONTEXT: the name of an export, and the client's
 * queries for its contexts.
 *
 * @param queries each of them a namespace, a colon and a leaf, if it is well-formed
 */
public record MetaContextRequest(String name, List<String> queries) {
  private static final int MAXIMUM_QUERY_BYTES = 4096;

  /** Keeps a copy of the queries. */
  public MetaContextRequest {
    queries = List.copyOf(queries);
  }

  /** Reads the whole data of an option. */
  public static MetaContextRequest parse(ByteBuffer data) throws MalformedException {
    String name =
        ExportRequest.name(ExportRequest.string(data, ExportRequest.MAXIMUM_NAME_BYTES, "name"));
    if (data.remaining() < 4) {
      throw new MalformedException("the data is too short");
    }
    long count = Integer.toUnsignedLong(data.getInt());
    if (count > data.remaining() / 4) {
      throw new MalformedException("%d queries in %d bytes".formatted(count, data.remaining()));
    }
    List<String> queries = new ArrayList<>();
    for (long i = 0; i < count; i++) {
      // A query that is not UTF-8 is the name of no context.
      queries.add(
          StandardCharsets.UTF_8.decode(ExportRequest.string(data, MAXIMUM_QUERY_BYTES, "query"))
              + "");
    }
    if (data.hasRemaining()) {
      throw new MalformedException(data.remaining() + " bytes follow the last query");
    }
    return new MetaContextRequest(name, queries);
  }

  /** Says whether LIST has to name the context. */
  public boolean lists(String context, Set<String> wildcards) {
    return queries.isEmpty()
        || queries.contains(context)
        || queries.stream().anyMatch(wildcards::contains);
  }

  /** Says whether LIST may have to name a context of a dirty bitmap. */
  public boolean mayListBitmap() {
    return queries.isEmpty() || queries.contains(DirtyBitmap.NAMESPACE) || maySelectBitmap();
  }

  /** Says whether SET may select a context of a dirty bitmap. */
  public boolean maySelectBitmap() {
    return queries.stream().anyMatch(query -> query.startsWith(DirtyBitmap.PREFIX));
  }

  /** Says whether SET selects the context, which only its name does. */
  public boolean selects(String context) {
    return queries.contains(context);
  }
}
