package nbd.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.function.Predicate;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import nbd.client.NbdUri;
import nbd.file.DirectoryBackend;
import nbd.file.FileBackend;
import nbd.file.FileKind;
import nbd.file.FileSettings;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.storage.Backend;
import org.jspecify.annotations.Nullable;

/** The argument BACKEND of serve. */
final class BackendArgument {
  private static final long MAXIMUM_NULL = Long.MAX_VALUE - 511;

  /** A word and a colon; a single letter is more likely part of a file's name. */
  private static final Pattern PREFIX = Pattern.compile("[A-Za-z][A-Za-z0-9+.-]+:");

  /** The names by which qemu knew exports before there were URIs. */
  private static final Pattern OLD_NBD_NAME =
      Pattern.compile("(unix:)?([^:]+)(:\\d+)?(?::exportname=(.*))?");

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
      case "file" -> file(path(rest), files);
      case "dir" -> DirectoryBackend.open(path(rest), files);
      case "memory" -> new MemoryBackend(size(rest, MemoryBackend.MAXIMUM_SIZE));
      case "null" -> new NullBackend(size(rest, MAXIMUM_NULL));
      default -> {
        Path path = path(argument);
        if (PREFIX.matcher(argument).lookingAt() && !Files.exists(path)) {
          throw new IllegalArgumentException(unknown(argument, kind, rest));
        }
        yield file(path, files);
      }
    };
  }

  /** Of a character device neither size nor contents are what they seem: /dev/zero is empty. */
  private static Backend file(Path path, FileSettings files) throws IOException {
    if (Files.exists(path) && FileKind.of(path) == FileKind.CHARACTER_DEVICE) {
      throw new IOException(path + " is a character device; name an image file or a block device");
    }
    return FileBackend.open(path, files);
  }

  /** What to say of an argument that looks like a kind of backend that there is not. */
  private static String unknown(String argument, String kind, String rest) {
    String meant =
        switch (kind.toLowerCase(Locale.ROOT)) {
          case "ram", "mem", "memory" -> "memory:" + rest;
          case "zero", "null" -> "null:" + rest;
          case "directory", "folder", "dir" -> "dir:" + rest;
          case "path", "raw", "file" -> "file:" + rest;
          case "unix" -> "nbd+unix:///?socket=" + rest;
          case "nbd" -> asUri(rest);
          default -> "";
        };
    return ("\"%s\" is neither a file nor a kind of backend%s; there are PATH, file:PATH, dir:PATH,"
            + " memory:SIZE, null:SIZE, and NBD URIs (nbd://, nbds://, nbd+unix://, nbds+unix://)")
        .formatted(argument, meant.isEmpty() ? "" : " (did you mean " + meant + "?)");
  }

  /** The URI for qemu's HOST:PORT and unix:PATH. */
  private static String asUri(String oldName) {
    Matcher parts = OLD_NBD_NAME.matcher(oldName);
    if (!parts.matches()) {
      return "nbd://HOST:PORT/EXPORT";
    }
    String export = Objects.requireNonNullElse(parts.group(4), "");
    return parts.group(1) == null
        ? "nbd://%s%s/%s"
            .formatted(parts.group(2), Objects.requireNonNullElse(parts.group(3), ""), export)
        : "nbd+unix:///%s?socket=%s".formatted(export, parts.group(2));
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
