package nbd.cli;

import java.io.IOException;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.List;
import java.util.function.Predicate;
import nbd.backend.Backend;
import nbd.backend.DirectoryBackend;
import nbd.backend.FileBackend;
import nbd.backend.FileSettings;
import nbd.backend.MemoryBackend;
import nbd.backend.NullBackend;
import nbd.client.NbdUri;
import org.jspecify.annotations.Nullable;

/** The argument BACKEND of serve. */
final class BackendArgument {
  private static final long MAXIMUM_NULL = Long.MAX_VALUE - 511;

  private BackendArgument() {}

  /** Whether the argument names another NBD server. */
  static boolean isUpstream(String argument) {
    return NbdUri.isUri(argument);
  }

  /** Whether the argument names image files, a device, or a directory of files. */
  static boolean isFiles(String argument) {
    return !isUpstream(argument)
        && !argument.startsWith("memory:")
        && !argument.startsWith("null:");
  }

  /** Whether the argument names a directory, whose files' names are the exports'. */
  static boolean isDirectory(String argument) {
    return argument.startsWith("dir:");
  }

  /**
   * What is wrong if the user gave an option that another kind of backend has; null if nothing is.
   *
   * @param kind of backend, for the message
   * @param given whether the user gave an option
   */
  static @Nullable String onlyFor(String kind, List<String> options, Predicate<String> given) {
    return options.stream()
        .filter(given)
        .findFirst()
        .map(option -> option + ": only with " + kind + " as BACKEND")
        .orElse(null);
  }

  /**
   * Opens what the argument names.
   *
   * @param files how files are opened
   * @param upstream how another server is reached
   * @throws IllegalArgumentException if it names nothing that could be opened: wrong usage
   * @throws IOException if it could not be opened
   */
  static Backend open(String argument, FileSettings files, UpstreamOptions upstream)
      throws IOException {
    if (isUpstream(argument)) {
      return upstream.open(NbdUri.parse(argument));
    }
    int colon = argument.indexOf(':');
    String kind = argument.substring(0, Math.max(colon, 0));
    String rest = argument.substring(colon + 1);
    return switch (kind) {
      case "file" -> FileBackend.open(path(rest), files);
      case "dir" -> DirectoryBackend.open(path(rest), files);
      case "memory" -> new MemoryBackend(size(rest, MemoryBackend.MAXIMUM_SIZE));
      case "null" -> new NullBackend(size(rest, MAXIMUM_NULL));
      default -> FileBackend.open(path(argument), files);
    };
  }

  private static Path path(String path) {
    if (path.isEmpty()) {
      throw new IllegalArgumentException("the name of the file is missing");
    }
    try {
      return Path.of(path);
    } catch (InvalidPathException invalid) {
      throw new IllegalArgumentException("\"" + path + "\" is not a file name", invalid);
    }
  }

  private static long size(String text, long maximum) {
    long size = Size.parse(text);
    if (size > maximum) {
      throw new IllegalArgumentException(
          "\"" + text + "\" is too large, at most " + maximum + " bytes are possible");
    }
    return size;
  }
}
