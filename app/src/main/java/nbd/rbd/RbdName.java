package nbd.rbd;

import java.util.Optional;

/**
 * The place of an image, or of a snapshot of it.
 *
 * @param pool that holds the image
 * @param namespace of the pool; empty for the default one
 * @param image empty if every image of the pool is meant
 * @param snapshot the state to read; empty for the present one
 * @param since an older snapshot, to which the snapshot is compared
 */
public record RbdName(
    String pool,
    String namespace,
    Optional<String> image,
    Optional<String> snapshot,
    Optional<String> since) {
  private static final String SINCE = "since=";

  /**
   * Reads POOL, or POOL[/NAMESPACE]/IMAGE[@SNAPSHOT[?since=SNAPSHOT]].
   *
   * @throws IllegalArgumentException with a message for the user
   */
  public static RbdName parse(String text) {
    int question = text.indexOf('?');
    String path = question < 0 ? text : text.substring(0, question);
    String[] parts = path.split("/", -1);
    if (parts.length > 3 || path.isEmpty()) {
      throw new IllegalArgumentException(
          "\"%s\" is not of the form POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]".formatted(text));
    }
    RbdName pool =
        new RbdName(
            named(parts[0], "pool"),
            parts.length == 3 ? named(parts[1], "namespace") : "",
            Optional.empty(),
            Optional.empty(),
            Optional.empty());
    RbdName name = parts.length == 1 ? pool : pool.withImage(parts[parts.length - 1]);
    return question < 0 ? name : name.withSince(text.substring(question + 1));
  }

  private static String named(String part, String what) {
    if (part.isEmpty()) {
      throw new IllegalArgumentException("the name of the " + what + " is missing");
    }
    return part;
  }

  /**
   * Returns the place of an image of this pool.
   *
   * @param text IMAGE[@SNAPSHOT]
   * @throws IllegalArgumentException with a message for the user
   */
  RbdName withImage(String text) {
    int at = text.indexOf('@');
    return new RbdName(
        pool,
        namespace,
        Optional.of(named(at < 0 ? text : text.substring(0, at), "image")),
        at < 0 ? Optional.empty() : Optional.of(named(text.substring(at + 1), "snapshot")),
        since);
  }

  private RbdName withSince(String query) {
    if (!query.startsWith(SINCE)) {
      throw new IllegalArgumentException(
          "\"?%s\" is unknown; there is ?since=SNAPSHOT".formatted(query));
    }
    if (snapshot.isEmpty()) {
      throw new IllegalArgumentException(
          "?since=SNAPSHOT needs IMAGE@SNAPSHOT: an image that changes has no fixed difference");
    }
    String older = named(query.substring(SINCE.length()), "snapshot behind since=");
    return new RbdName(pool, namespace, image, snapshot, Optional.of(older));
  }

  /** Returns the name as the user writes it. */
  @Override
  public String toString() {
    return "rbd:"
        + pool
        + (namespace.isEmpty() ? "" : "/" + namespace)
        + image.map(name -> "/" + name).orElse("")
        + snapshot.map(name -> "@" + name).orElse("")
        + since.map(name -> "?" + SINCE + name).orElse("");
  }
}
