package nbd.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Objects;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import nbd.client.NbdUri;
import nbd.file.DirectoryBackend;
import nbd.file.FileBackend;
import nbd.file.FileKind;
import nbd.file.FileSettings;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.rbd.RbdBackend;
import nbd.rbd.RbdName;
import nbd.rbd.RbdSettings;
import nbd.storage.Backend;

/** The argument BACKEND of serve, which names the storage. */
final class BackendArgument {
  private static final long MAXIMUM_NULL = Long.MAX_VALUE - 511;

  /** A word of two letters or more, and a colon: the user may have meant a kind of backend. */
  private static final Pattern PREFIX = Pattern.compile("[A-Za-z][A-Za-z0-9+.-]+:");

  /** An export in qemu's form from before NBD URIs, behind the prefix nbd:. */
  private static final Pattern OLD_NBD_NAME =
      Pattern.compile("(unix:)?([^:]+)(:\\d+)?(?::exportname=(.*))?");

  private BackendArgument() {}

  /** True if the argument names another NBD server. */
  static boolean isUpstream(String argument) {
    return NbdUri.isUri(argument);
  }

  /** True if the argument names an image file, a device, or a directory of files. */
  static boolean isFiles(String argument) {
    return !isUpstream(argument)
        && !isCeph(argument)
        && !argument.startsWith("memory:")
        && !argument.startsWith("null:");
  }

  /** True if the argument names an image, or all images of a pool, in a Ceph cluster. */
  static boolean isCeph(String argument) {
    return argument.startsWith("rbd:");
  }

  /** True if the argument names a pool, in which each image is an export. */
  static boolean isPool(String argument) {
    return isCeph(argument) && argument.indexOf('/') < 0;
  }

  /** True if the argument names a directory, in which each file is an export. */
  static boolean isDirectory(String argument) {
    return argument.startsWith("dir:");
  }

  /**
   * Opens the storage that the argument names.
   *
   * @param files the settings with which files are opened
   * @param upstream the options for another server
   * @param rbd the settings with which images in a Ceph cluster are opened
   * @throws UsageException if the argument names no storage
   * @throws IOException if the storage could not be opened
   */
  static Backend open(
      String argument, FileSettings files, UpstreamOptions upstream, RbdSettings rbd)
      throws IOException {
    if (isUpstream(argument)) {
      try {
        return upstream.open(NbdUri.parse(argument));
      } catch (IllegalArgumentException wrong) {
        throw new UsageException(wrong.getMessage());
      }
    }
    int colon = argument.indexOf(':');
    String kind = argument.substring(0, Math.max(colon, 0));
    String rest = argument.substring(colon + 1);
    return switch (kind) {
      case "file" -> file(OptionValues.path(rest), files);
      case "dir" -> DirectoryBackend.open(OptionValues.path(rest), files);
      case "memory" -> new MemoryBackend(size(rest, MemoryBackend.MAXIMUM_SIZE));
      case "null" -> new NullBackend(size(rest, MAXIMUM_NULL));
      case "rbd" -> RbdBackend.of(rbdName(rest), rbd);
      default -> {
        Path path = OptionValues.path(argument);
        if (PREFIX.matcher(argument).lookingAt() && !Files.exists(path)) {
          throw new UsageException(unknown(argument, kind, rest));
        }
        yield file(path, files);
      }
    };
  }

  private static RbdName rbdName(String text) {
    try {
      return RbdName.parse(text);
    } catch (IllegalArgumentException wrong) {
      throw new UsageException(wrong.getMessage());
    }
  }

  /** Refuses character devices, whose size means nothing: that of /dev/zero is 0. */
  private static Backend file(Path path, FileSettings files) throws IOException {
    if (Files.exists(path) && FileKind.of(path) == FileKind.CHARACTER_DEVICE) {
      throw new IOException(path + " is a character device; name an image file or a block device");
    }
    return FileBackend.open(path, files);
  }

  /** Explains that there is no such kind of backend, and which one the user may have meant. */
  private static String unknown(String argument, String kind, String rest) {
    String meant =
        switch (kind.toLowerCase(Locale.ROOT)) {
          case "ram", "mem", "memory" -> "memory:" + rest;
          case "zero", "null" -> "null:" + rest;
          case "directory", "folder", "dir" -> "dir:" + rest;
          case "path", "raw", "file" -> "file:" + rest;
          case "unix" -> "nbd+unix:///?socket=" + rest;
          case "nbd" -> asUri(rest);
          case "ceph", "rados", "rbd" -> "rbd:" + rest;
          default -> "";
        };
    return ("\"%s\" is neither a file nor a kind of backend%s; there are PATH, file:PATH, dir:PATH,"
            + " memory:SIZE, null:SIZE, rbd:POOL/IMAGE, and NBD URIs (nbd://, nbds://,"
            + " nbd+unix://, nbds+unix://)")
        .formatted(argument, meant.isEmpty() ? "" : " (did you mean " + meant + "?)");
  }

  /** Makes the URI of an export in qemu's old form. */
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

  private static long size(String text, long maximum) {
    long size = OptionValues.size(text);
    UsageException.refuseIf(
        size > maximum,
        "\"" + text + "\" is too large, at most " + maximum + " bytes are possible");
    return size;
  }
}
