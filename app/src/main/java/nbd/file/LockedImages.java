package nbd.file;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import nbd.posix.Descriptor;
import nbd.posix.PosixException;
import nbd.posix.PosixFile;

/**
 * The images that this process has locked, and those whose locks another process hands over to it.
 * A lock belongs to the opening of a file, in whatever process its descriptors are: so it changes
 * hands without a moment in which a third process could take it. Any thread may call.
 */
public final class LockedImages {
  private static final Set<PosixFile> HELD = ConcurrentHashMap.newKeySet();
  private static final List<Descriptor> INHERITED = new CopyOnWriteArrayList<>();

  private LockedImages() {}

  /** Notes that an opening holds its image's locks, until the answer is closed. */
  static AutoCloseable hold(PosixFile locked) {
    HELD.add(locked);
    return () -> HELD.remove(locked);
  }

  /**
   * Returns the openings that hold locks, once more; the caller closes them.
   *
   * @throws IOException if there are too many descriptors
   */
  public static List<Descriptor> copies() throws IOException {
    List<Descriptor> copies = new ArrayList<>();
    try {
      for (PosixFile file : HELD) {
        copies.add(file.copy());
      }
      return copies;
    } catch (IOException failure) {
      copies.forEach(Descriptor::close);
      throw failure;
    }
  }

  /** Takes over another process's openings; images that are opened from now on use them. */
  public static void inherit(Descriptor locked) {
    INHERITED.add(locked);
  }

  /** Closes the openings that no image has used. */
  public static void forget() {
    INHERITED.forEach(Descriptor::close);
    INHERITED.clear();
  }

  /** Takes the inherited opening of an image, if there is one for the same use. */
  static Optional<PosixFile> take(Path image, boolean writable, String name) {
    for (Descriptor each : INHERITED) {
      try {
        if (Files.isSameFile(image, each.path())) {
          Optional<PosixFile> file = PosixFile.of(each, writable, name);
          file.ifPresent(_ -> INHERITED.remove(each));
          return file;
        }
      } catch (PosixException failure) {
        return Optional.empty();
      } catch (IOException gone) {
        // Its name is gone: it is another file.
      }
    }
    return Optional.empty();
  }
}
