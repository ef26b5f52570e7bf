package nbd.cli;

import java.io.IOException;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import nbd.backend.Backend;
import nbd.backend.FileBackend;
import nbd.backend.MemoryBackend;
import nbd.backend.NullBackend;
import nbd.client.NbdUri;

/** The argument BACKEND of serve. */
final class BackendArgument {
  private static final long MAXIMUM_NULL = Long.MAX_VALUE - 511;

  private BackendArgument() {}

  /** Whether the argument names another NBD server. */
  static boolean isUpstream(String argument) {
    return NbdUri.isUri(argument);
  }

  /**
   * Opens what the argument names.
   *
   * @throws IllegalArgumentException if it names nothing that could be opened: wrong usage
   * @throws IOException if it could not be opened
   */
  static Backend open(String argument, boolean readOnly, UpstreamOptions upstream)
      throws IOException {
    if (isUpstream(argument)) {
      return upstream.open(NbdUri.parse(argument));
    }
    int colon = argument.indexOf(':');
    String kind = argument.substring(0, Math.max(colon, 0));
    String rest = argument.substring(colon + 1);
    return switch (kind) {
      case "file" -> file(rest, readOnly);
      case "memory" -> new MemoryBackend(size(rest, MemoryBackend.MAXIMUM_SIZE));
      case "null" -> new NullBackend(size(rest, MAXIMUM_NULL));
      default -> file(argument, readOnly);
    };
  }

  private static Backend file(String path, boolean readOnly) throws IOException {
    if (path.isEmpty()) {
      throw new IllegalArgumentException("the name of the file is missing");
    }
    try {
      return FileBackend.open(Path.of(path), readOnly);
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
