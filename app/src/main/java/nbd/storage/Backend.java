package nbd.storage;

import java.io.IOException;
import java.util.List;
import java.util.Optional;

/**
 * Storage that can be served: a file, RAM, another server; or a filter around one of these. It sees
 * export names, never connections or sockets.
 *
 * <p>An implementer owes: all methods may be called by any thread at any time until {@link #close},
 * and a handle that fails or is slow never keeps another export's handles waiting.
 */
public interface Backend extends AutoCloseable {
  /** What it is, for messages: "file disk.img". */
  String name();

  /** Which calls of its handles may run at the same time. */
  ThreadModel threadModel();

  /**
   * The exports that the storage itself names, of which only these, and perhaps others that it does
   * not tell, can be opened.
   *
   * @return empty if it has no names of its own: it opens under any name that the server accepts
   * @throws nbd.protocol.OptionException if it is not willing to tell
   * @throws IOException if it could not be found out
   */
  default Optional<List<ListedExport>> exports() throws IOException {
    return Optional.empty();
  }

  /**
   * Opens the storage for one connection.
   *
   * @param exportName the name that the client asked for, after the server accepted it
   * @param readOnly that no writing call will be made; the handle then has no {@link
   *     Capability#WRITE}
   * @return a handle of the caller's own, which it closes once
   * @throws nbd.protocol.OptionException if the export cannot be opened for a reason that the
   *     protocol has a number for
   * @throws IOException if the storage failed; the message says what and on what
   */
  Handle open(String exportName, boolean readOnly) throws IOException;

  /**
   * The server is about to stop: from now on no call waits for storage to come back, or to be
   * opened. Whatever waits so fails at once, and so does what would wait later; calls that the
   * storage is working on go on, and it gets a few seconds more for them. What is lost by this,
   * {@link #close} says. Any thread may call it, at any time and more than once; it does not wait
   * itself.
   */
  default void stopWaiting() {}

  /**
   * Releases what the handles shared. Called once, after the last handle was closed.
   *
   * @throws IOException if something that was to be stored could not be
   */
  @Override
  void close() throws IOException;
}
