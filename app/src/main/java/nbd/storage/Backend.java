package nbd.storage;

import java.io.IOException;
import java.util.List;
import java.util.Optional;

/**
 * Storage that can be served: a file, RAM, another server; or a filter around one of these. It sees
 * export names, never connections or sockets.
 *
 * <p>Any thread may call any method until {@link #close}. A handle that fails or is slow never
 * keeps another export's handles waiting.
 */
public interface Backend extends AutoCloseable {
  /** Returns its name for messages: "file disk.img". */
  String name();

  /** Returns which operations of its handles may run at the same time. */
  ThreadModel threadModel();

  /** Says whether the content is in this process only, and lost with it. */
  default boolean isVolatile() {
    return false;
  }

  /**
   * Lists the exports that the storage itself names. It may open others that it does not list.
   *
   * @return empty if it has no names of its own: it opens under any name that the server accepts
   * @throws nbd.protocol.OptionException if it refuses to list them
   * @throws IOException if listing them failed
   */
  default Optional<List<ListedExport>> exports() throws IOException {
    return Optional.empty();
  }

  /**
   * Opens the storage for one connection.
   *
   * @param exportName the name that the client asked for, after the server accepted it
   * @param readOnly whether the handle is opened without {@link Capability#WRITE}
   * @return a handle of the caller's own, which it closes once
   * @throws nbd.protocol.OptionException if the export cannot be opened for a reason that the
   *     protocol has a number for
   * @throws IOException if the storage failed; the message names the storage and the failure
   */
  Handle open(String exportName, boolean readOnly) throws IOException;

  /**
   * Announces that the server is about to stop. Operations and openings that wait for storage to
   * come back fail at once, now and from now on; those that the storage is working on have a few
   * seconds more. {@link #close} reports losses that this causes. May be called more than once, and
   * does not wait.
   */
  default void stopWaiting() {}

  /**
   * Releases everything that the handles shared. Called once, after the last handle was closed.
   *
   * @throws IOException if data could not be stored
   */
  @Override
  void close() throws IOException;
}
