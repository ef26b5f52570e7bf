package nbd.check;

import java.io.BufferedWriter;
import java.io.IOException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/** A file that a history is saved to while it is made; see {@link HistoryFile}. */
final class SavedEvents implements Consumer<Event>, AutoCloseable {
  private final Path path;
  private final Runnable whenFailed;
  private final BufferedWriter file;
  private @Nullable IOException failure;

  /**
   * Makes the file, or empties it.
   *
   * @param whenFailed called once if an event cannot be written
   */
  SavedEvents(Path path, Runnable whenFailed) throws IOException {
    this.path = path;
    this.whenFailed = whenFailed;
    this.file = Files.newBufferedWriter(path);
  }

  @Override
  public synchronized void accept(Event event) {
    if (failure != null) {
      return;
    }
    try {
      file.write(HistoryFile.toLine(event));
      file.newLine();
    } catch (IOException failed) {
      failure = failed;
      whenFailed.run();
    }
  }

  /**
   * Ends the file.
   *
   * @throws FileSystemException if the history is not all there
   */
  @Override
  public synchronized void close() throws FileSystemException {
    try (file) {
      if (failure != null) {
        throw failure;
      }
    } catch (IOException full) {
      throw new FileSystemException(path.toString(), null, full.getMessage());
    }
  }
}
