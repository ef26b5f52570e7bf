package nbd.cli;

import nbd.file.FileSettings;
import nbd.file.FileSettings.AccessPattern;
import nbd.file.FileSettings.CacheAdvice;
import picocli.CommandLine.Option;

/** The options of serve for image files as the backend. */
final class FileOptions {

  @Option(
      names = "--force-share",
      description =
          "Do not lock files, and open those that other programs have locked."
              + " Two writers corrupt an image.")
  private boolean forceShare;

  @Option(
      names = "--fadvise",
      paramLabel = "PATTERN",
      defaultValue = "normal",
      description =
          "Tell the system how clients will read: one of ${COMPLETION-CANDIDATES}"
              + " (default: ${DEFAULT-VALUE}).")
  private AccessPattern pattern = AccessPattern.NORMAL;

  @Option(
      names = "--cache-advice",
      paramLabel = "ADVICE",
      defaultValue = "normal",
      description =
          "normal, or none: read and write files without filling the page cache"
              + " (default: ${DEFAULT-VALUE}).")
  private CacheAdvice cacheAdvice = CacheAdvice.NORMAL;

  /** Makes the settings with which files are opened. */
  FileSettings settings(boolean readOnly) {
    return new FileSettings(readOnly, !forceShare, pattern, cacheAdvice);
  }
}
