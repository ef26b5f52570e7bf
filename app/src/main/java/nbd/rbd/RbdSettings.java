package nbd.rbd;

import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;

/**
 * The settings for connecting to a cluster, and for opening its images.
 *
 * @param configuration Ceph's configuration file; empty for the one that Ceph looks for
 * @param user of the cluster, without "client."
 * @param options of Ceph, which take precedence over the file
 * @param timeout limit on the time that the cluster may take for a request
 * @param handles how connections share an image
 * @param breaksLocks whether to take an image's lock from another client when it is opened
 */
public record RbdSettings(
    Optional<Path> configuration,
    String user,
    Map<String, String> options,
    Duration timeout,
    Handles handles,
    boolean breaksLocks) {
  /** Keeps a copy of the options. */
  public RbdSettings {
    options = Map.copyOf(options);
  }

  /** The way in which connections share an image. */
  public enum Handles {
    /** All connections use one opening of the image, without a cache. */
    SHARED,
    /** Each connection has an opening and a cache of its own. */
    CONNECTION
  }
}
