package nbd.protocol;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import nbd.protocol.ExportRequest.MalformedException;

/**
 * The data of LIST_META_CONTEXT and SET_META_CONTEXT: which export, and which of its contexts.
 *
 * @param name the export's name
 * @param queries what the client asks for, each a namespace, a colon and a leaf if it is any good
 */
public record MetaContextRequest(String name, List<String> queries) {
  private static final int MAXIMUM_QUERY_BYTES = 4096;

  /** Keeps a copy of the queries. */
  public MetaContextRequest {
    queries = List.copyOf(queries);
  }

  /**
   * Reads it.
   *
   * @param data all of the option's data, big-endian
   * @throws MalformedException if it is not well-formed
   */
  public static MetaContextRequest parse(ByteBuffer data) throws MalformedException {
    String name = ExportRequest.name(string(data, ExportRequest.MAXIMUM_NAME_BYTES, "name"));
    if (data.remaining() < 4) {
      throw new MalformedException("the data is too short");
    }
    long count = Integer.toUnsignedLong(data.getInt());
    if (count > data.remaining() / 4) {
      throw new MalformedException("%d queries in %d bytes".formatted(count, data.remaining()));
    }
    List<String> queries = new ArrayList<>();
    for (long i = 0; i < count; i++) {
      // What is not UTF-8 is nobody's name: it will be found to be unknown.
      queries.add(StandardCharsets.UTF_8.decode(string(data, MAXIMUM_QUERY_BYTES, "query")) + "");
    }
    if (data.hasRemaining()) {
      throw new MalformedException(data.remaining() + " bytes follow the last query");
    }
    return new MetaContextRequest(name, queries);
  }

  private static ByteBuffer string(ByteBuffer data, int most, String what)
      throws MalformedException {
    if (data.remaining() < 4) {
      throw new MalformedException("the data is too short");
    }
    long length = Integer.toUnsignedLong(data.getInt());
    if (length > data.remaining()) {
      throw new MalformedException("a " + what + " is longer than the data");
    }
    if (length > most) {
      throw new MalformedException(
          "a %s has %d bytes, at most %d are allowed".formatted(what, length, most));
    }
    ByteBuffer string = data.slice(data.position(), (int) length);
    data.position(data.position() + (int) length);
    return string;
  }

  /** Whether LIST has to name the context. */
  public boolean lists(String context, String wildcard) {
    return queries.isEmpty() || queries.contains(wildcard) || queries.contains(context);
  }

  /** Whether SET selects the context: by its name only. */
  public boolean selects(String context) {
    return queries.contains(context);
  }
}
