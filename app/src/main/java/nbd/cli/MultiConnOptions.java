package nbd.cli;

import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.multiconn.TrackDirty;
import picocli.CommandLine.Option;

/** The options of serve for several connections to one export. */
final class MultiConnOptions {
  @Option(
      names = "--multi-conn-mode",
      paramLabel = "MODE",
      defaultValue = "auto",
      description =
          "The promise to clients about several connections, and the reach of a flush (default:"
              + " ${DEFAULT-VALUE}): one of ${COMPLETION-CANDIDATES}; see MULTI-CONN in the manual"
              + " page.")
  private MultiConnMode mode = MultiConnMode.AUTO;

  @Option(
      names = "--multi-conn-track-dirty",
      paramLabel = "LEVEL",
      defaultValue = "connection",
      description =
          "How precisely the server tracks which connections need a flush (default:"
              + " ${DEFAULT-VALUE}): one of ${COMPLETION-CANDIDATES}.")
  private TrackDirty tracking = TrackDirty.CONNECTION;

  @Option(
      names = "--multi-conn-exportname",
      arity = "0..1",
      paramLabel = "true|false",
      defaultValue = "false",
      fallbackValue = "true",
      description =
          "Keep only connections to the same export name consistent with each other (default:"
              + " ${DEFAULT-VALUE}); right if names stand for different contents.")
  private boolean byExportName;

  MultiConnMode mode() {
    return mode;
  }

  /** Names the mode for people. */
  String words() {
    return OptionValues.nameOf(mode);
  }

  /** Makes the filter's settings. */
  MultiConnSettings settings(int maxConnections) {
    return new MultiConnSettings(mode, tracking, byExportName, maxConnections == 1);
  }
}
