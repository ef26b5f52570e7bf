package nbd.cli;

import java.util.List;
import java.util.function.Predicate;
import nbd.file.FileSettings;
import nbd.file.FileSettings.AccessPattern;
import nbd.file.FileSettings.CacheAdvice;
import org.jspecify.annotations.Nullable;
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
      converter = Names.Pattern.class,
      completionCandidates = Names.Pattern.class,
      description =
          "Tell the system how clients will read: one of ${COMPLETION-CANDIDATES}"
              + " (default: ${DEFAULT-VALUE}).")
  private AccessPattern pattern = AccessPattern.NORMAL;

  @Option(
      names = CACHE_ADVICE,
      paramLabel = "ADVICE",
      defaultValue = "normal",
      converter = Names.Advice.class,
      completionCandidates = Names.Advice.class,
      description =
          "normal, or none: read and write files without filling the page cache"
              + " (default: ${DEFAULT-VALUE}).")
  private CacheAdvice cacheAdvice = CacheAdvice.NORMAL;

  /**
   * What is wrong with the options; null if nothing is.
   *
   * @param isFiles whether the backend is made of files
   * @param given whether the user gave an option
   */
  @Nullable String problem(boolean isFiles, Predicate<String> given) {
    return isFiles
        ? null
        : BackendArgument.onlyFor("files", List.of(FORCE_SHARE, FADVISE, CACHE_ADVICE), given);
  }

  /** As files are opened. */
  FileSettings settings(boolean readOnly) {
    return new FileSettings(readOnly, !forceShare, pattern, cacheAdvice);
  }
}
