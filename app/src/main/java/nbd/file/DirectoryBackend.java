package nbd.file;

import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.DirectoryIteratorException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import nbd.posix.PathDescriptor;
import nbd.posix.PosixException;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReplyType;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.ListedExport;
import nbd.storage.ThreadModel;
import nbd.threads.BlockingCalls;
import nbd.threads.KeyedLocks;

/**
 * A directory of which each regular file is an export of its name, while it is there.
 *
 * <p><b>No way out.</b> Whatever name a client sends, it opens a regular file that was in this
 * directory, or in one below it, at that moment. A name with a slash or a NUL names nothing. A name
 * is resolved without being opened ({@link PathDescriptor}); the kind and the path, behind symbolic
 * links, are asked of the file that was found; and exactly that file is opened. So it does not help
 * to exchange a file for a link meanwhile; and a pipe or a device keeps nobody waiting, since it is
 * never opened. A hard link is a name like any other: whoever made it had access to both places.
 *
 * <p>This needs Linux with /proc. Without, the same is checked by name before the file is opened,
 * which does not hold against somebody who exchanges files at that moment.
 *
 * <p>The directory itself is resolved once: when it is moved, it is served at its new place.
 *
 * <p>However long the storage of one file hangs, the others are listed and opened: clients that
 * open the same name do so one after the other ({@link KeyedLocks}), and keep one thread of the
 * directory waiting; an open file has threads of its own.
 *
 * <p>Names of the same file, hard or symbolic links, share one opening ({@link SharedFiles}), and
 * with it the knowledge of a loss. Otherwise they are different exports: a flush of one covers
 * writes by the other name too, since the file is one, but nothing relies on that.
 */
public final class DirectoryBackend implements Backend {
  private static final char REPLACEMENT = '\uFFFD';

  private final Path path;
  private final FileSettings settings;
  private final Optional<PathDescriptor> directory;
  private final BlockingCalls blocking;
  private final Listing listing;
  private final KeyedLocks names = new KeyedLocks();
  private final SharedFiles files = new SharedFiles();

  private DirectoryBackend(Path path, FileSettings settings, Optional<PathDescriptor> directory) {
    this.path = path;
    this.settings = settings;
    this.directory = directory;
    this.blocking = BlockingCalls.ofManyFiles("directory " + path);
    this.listing = new Listing(this::listed, blocking.threads(), Listing.PATIENCE);
  }

  /**
   * Finds the directory.
   *
   * @throws IOException with a message for the user if there is none
   */
  public static DirectoryBackend open(Path path, FileSettings settings) throws IOException {
    if (!Files.exists(path)) {
      throw new IOException(path + " does not exist");
    }
    if (!Files.isDirectory(path)) {
      throw new IOException(path + " is not a directory; write file:" + path);
    }
    try {
      Path real = path.toRealPath();
      return new DirectoryBackend(real, settings, PathDescriptor.of(real));
    } catch (PosixException | AccessDeniedException denied) {
      throw new IOException(path + " cannot be opened: permission denied", denied);
    }
  }

  @Override
  public String name() {
    return "directory " + path;
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  /** The regular files in the order of their names, without those whose storage hangs. */
  @Override
  public Optional<List<ListedExport>> exports() throws IOException {
    return Optional.of(
        listing.served(blocking.ask(this::entries)).stream()
            .sorted(Comparator.comparing(ListedExport::name))
            .toList());
  }

  private List<Path> entries() throws IOException {
    List<Path> found = new ArrayList<>();
    Path where = directory.isPresent() ? directory.get().descriptorPath() : path;
    // The descriptor's path is a symbolic link: "." means its target.
    try (DirectoryStream<Path> entries = Files.newDirectoryStream(where.resolve("."))) {
      entries.forEach(found::add);
      return found;
    } catch (DirectoryIteratorException failure) {
      throw failure.getCause();
    } catch (NoSuchFileException gone) {
      throw new IOException(path + " does not exist any more", gone);
    }
  }

  /**
   * The name as clients send it, whatever the locale is: the URI has its bytes.
   *
   * @return with {@link #REPLACEMENT} in it if it is not UTF-8, so that no client can send it
   */
  private static String nameInUtf8(Path entry) {
    String decoded = entry.toUri().getPath();
    return decoded.substring(decoded.lastIndexOf('/') + 1);
  }

  /** Finds out whether an entry is listed. Opening it checks more, and anew. */
  private Optional<ListedExport> listed(Path entry) {
    try {
      boolean served =
          FileKind.of(entry) == FileKind.REGULAR
              && (!Files.isSymbolicLink(entry) || isBelow(entry.toRealPath(), realPath()));
      String name = served ? nameInUtf8(entry) : "";
      return served && name.indexOf(REPLACEMENT) < 0
          ? Optional.of(new ListedExport(name, ""))
          : Optional.empty();
    } catch (IOException notThere) {
      return Optional.empty();
    }
  }

  private Path realPath() throws IOException {
    return directory.isPresent() ? directory.get().realPath() : path;
  }

  private static boolean isBelow(Path file, Path real) {
    return file.startsWith(real) && !file.equals(real);
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    if (exportName.isEmpty()) {
      throw unknown("name one of the files in the directory");
    }
    if (exportName.indexOf('/') >= 0
        || exportName.indexOf('\0') >= 0
        || exportName.equals(".")
        || exportName.equals("..")) {
      throw unknown("\"" + exportName.replace('\0', '?') + "\" is not the name of a file");
    }
    try {
      return names.withLock(
          exportName,
          () ->
              directory.isPresent()
                  ? openFound(directory.get(), exportName, readOnly)
                  : openByName(exportName, readOnly));
    } catch (NoSuchFileException gone) {
      throw notThere(exportName);
    }
  }

  private PathDescriptor find(PathDescriptor in, String exportName) throws IOException {
    try {
      return in.resolve(exportName);
    } catch (PosixException failure) {
      switch (failure.errno()) {
        case ENOENT, ENAMETOOLONG, ELOOP -> throw notThere(exportName);
        case EACCES -> throw forbidden(exportName);
        default -> throw failure;
      }
    }
  }

  private Handle openFound(PathDescriptor in, String exportName, boolean readOnly)
      throws IOException {
    try (PathDescriptor found = blocking.ask(() -> find(in, exportName))) {
      Path where = found.descriptorPath();
      Object identity = blocking.ask(() -> identity(in, found, exportName));
      return files.open(identity, readOnly, opener(where, path + "/" + exportName));
    }
  }

  /** The identity of a file that is served: no other file has it while this one is held. */
  private static Object identity(PathDescriptor in, PathDescriptor found, String exportName)
      throws IOException {
    Path where = found.descriptorPath();
    if (FileKind.of(where) != FileKind.REGULAR || !isBelow(found.realPath(), in.realPath())) {
      throw notServed(exportName);
    }
    return List.of(Files.getAttribute(where, "unix:dev"), Files.getAttribute(where, "unix:ino"));
  }

  private Handle openByName(String exportName, boolean readOnly) throws IOException {
    Path real = blocking.ask(() -> servedPath(exportName));
    return files.open(real, readOnly, opener(real, real.toString()));
  }

  private Path servedPath(String exportName) throws IOException {
    Path real = path.resolve(exportName).toRealPath();
    if (FileKind.of(real) != FileKind.REGULAR || !isBelow(real, path)) {
      throw notServed(exportName);
    }
    return real;
  }

  /**
   * Opens a file with a thread that may block; callers wait for their turn without one.
   *
   * @param shown for messages; no path, since a locale without UTF-8 has none for many names
   */
  private SharedFiles.Opener opener(Path where, String shown) {
    return () -> blocking.ask(() -> FileBackend.open(where, shown, settings));
  }

  private static OptionException notThere(String exportName) {
    return unknown("there is no file \"" + exportName + "\"");
  }

  private static OptionException notServed(String exportName) {
    return unknown("\"" + exportName + "\" is not a regular file of the directory");
  }

  private static OptionException unknown(String why) {
    return new OptionException(OptionReplyType.ERR_UNKNOWN, why);
  }

  private static OptionException forbidden(String exportName) {
    return new OptionException(
        OptionReplyType.ERR_POLICY, "\"" + exportName + "\": permission denied");
  }

  @Override
  public void close() throws IOException {
    try (blocking) {
      files.close();
    } finally {
      directory.ifPresent(PathDescriptor::close);
    }
  }
}
