package nbd.cli;

import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import nbd.rbd.RbdSettings;
import nbd.rbd.RbdSettings.Handles;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** The options of serve for images of a Ceph cluster as the backend. */
final class RbdOptions {
  private static final String TIMEOUT = "--ceph-timeout";

  @Option(
      names = "--ceph-conf",
      paramLabel = "FILE",
      description = "Read Ceph's configuration from this file (default: where Ceph looks for it).")
  private @Nullable Path configuration;

  @Option(
      names = "--ceph-user",
      paramLabel = "NAME",
      defaultValue = "admin",
      description =
          "Connect to the cluster as this user, without \"client.\" (default: ${DEFAULT-VALUE}).")
  private String user = "admin";

  @Option(
      names = "--ceph-option",
      paramLabel = "KEY=VALUE",
      description = "Set an option of Ceph, whatever its configuration says. More than once.")
  private Map<String, String> options = new LinkedHashMap<>();

  @Option(
      names = TIMEOUT,
      paramLabel = "DURATION",
      defaultValue = "30s",
      description =
          "Fail a request that the cluster has not answered after this long (default:"
              + " ${DEFAULT-VALUE}).")
  private Duration timeout = Duration.ofSeconds(30);

  @Option(
      names = "--rbd-handle",
      paramLabel = "HANDLE",
      defaultValue = "shared",
      description =
          "shared: all connections use one opening of the image, without a cache; or connection:"
              + " each has an opening and a cache of its own (default: ${DEFAULT-VALUE}).")
  private Handles handles = Handles.SHARED;

  @Option(
      names = "--rbd-break-lock",
      description =
          "When an image is opened that another client has locked, take the lock, and let the"
              + " cluster shut that client out.")
  private boolean breakLock;

  /** Throws a {@link UsageException} if the options are wrong. */
  void check() {
    UsageException.refuseIf(
        timeout.compareTo(Duration.ofSeconds(3)) < 0, TIMEOUT + ": has to be 3s or longer");
  }

  /** Makes the settings with which images are opened. */
  RbdSettings settings() {
    return new RbdSettings(
        Optional.ofNullable(configuration), user, options, timeout, handles, breakLock);
  }
}
