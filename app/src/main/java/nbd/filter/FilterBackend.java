package nbd.filter;

import java.io.IOException;
import java.util.List;
import java.util.Optional;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.ListedExport;
import nbd.storage.ThreadModel;

/** A backend around another one; closing it closes that one. */
public abstract class FilterBackend implements Backend {
  /** The backend below. */
  protected final Backend next;

  /** Wraps the next backend. */
  protected FilterBackend(Backend next) {
    this.next = next;
  }

  /** What a filter makes of the next backend's handle. */
  @FunctionalInterface
  protected interface Wrapping {
    /** Wraps it, or refuses it. */
    Handle of(Handle handle) throws IOException;
  }

  /**
   * Opens a handle of the next backend, which is closed again if it is not wrapped.
   *
   * @throws IOException also what the wrapping throws
   */
  protected final Handle openNext(String exportName, boolean readOnly, Wrapping wrapping)
      throws IOException {
    Handle handle = next.open(exportName, readOnly);
    try {
      return wrapping.of(handle);
    } catch (IOException | RuntimeException | Error e) {
      try {
        handle.close();
      } catch (IOException suppressed) {
        e.addSuppressed(suppressed);
      }
      throw e;
    }
  }

  @Override
  public String name() {
    return next.name();
  }

  @Override
  public ThreadModel threadModel() {
    return next.threadModel();
  }

  @Override
  public Optional<List<ListedExport>> exports() throws IOException {
    return next.exports();
  }

  @Override
  public void stopWaiting() {
    next.stopWaiting();
  }

  @Override
  public void close() throws IOException {
    next.close();
  }
}
