package nbd.filter;

import java.io.IOException;
import java.util.List;
import java.util.Optional;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.ListedExport;
import nbd.storage.ThreadModel;

/** A backend around another one; closing it closes that one. A filter overrides {@link #wrap}. */
public abstract class FilterBackend implements Backend {
  /** The backend below. */
  protected final Backend next;

  /** Wraps the next backend. */
  protected FilterBackend(Backend next) {
    this.next = next;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    Handle handle = next.open(exportName, readOnly);
    try {
      return wrap(handle, exportName);
    } catch (IOException | RuntimeException | Error failure) {
      try {
        handle.close();
      } catch (IOException suppressed) {
        failure.addSuppressed(suppressed);
      }
      throw failure;
    }
  }

  /**
   * Wraps a handle that the next backend has opened; by default returns it as it is.
   *
   * @throws IOException if the client is refused; the handle is closed then
   */
  protected Handle wrap(Handle handle, String exportName) throws IOException {
    return handle;
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
  public boolean isVolatile() {
    return next.isVolatile();
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
