package nbd.cli;

import java.util.List;
import java.util.function.Predicate;
import nbd.file.FileSettings;
import nbd.file.FileSettings.AccessPattern;
import nbd.file.FileSettings.CacheAdvice;
import picocli.CommandLine.Option;

/** The options of serve for image files as the backend. */
final class FileOptions {
  private static final String FORCE_SHARE = "--force-share";
  private static final String FADVISE = "--fadvise";
  private static final String CACHE_ADVICE = "--cache-advice";

  @Option(
      names = FORCE_SHARE,
      description =
          "Do not lock files, and open those that other programs have locked."
              + " Two writers corrupt an image.")
  private boolean forceShare;

  @Option(
      names = FADVISE,
      paramLabel = "PATTERN",
      defaultValue = "normal",
      description =
          "Tell the system how clients will read: one of ${COMPLETION-CANDIDATES}"
              + " (default: ${DEFAULT-VALUE}).")
  private AccessPattern pattern = AccessPattern.NORMAL;

  @Option(
      names = CACHE_ADVICE,
      paramLabel = "ADVICE",
      defaultValue = "normal",
      description =
          "normal, or none: read and write files without filling the page cache"
              + " (default: ${DEFAULT-VALUE}).")
  private CacheAdvice cacheAdvice = CacheAdvice.NORMAL;

  /** Refuses the options that the user gave for another kind of backend. */
  static void refuse(Predicate<String> isGiven) {
    UsageException.refuse(
        List.of(FORCE_SHARE, FADVISE, CACHE_ADVICE), isGiven, "only with files as BACKEND");
  }

  /** Makes the settings with which files are opened. */
  FileSettings settings(boolean readOnly) {
    return new FileSettings(readOnly, !forceShare, pattern, cacheAdvice);
  }
}
