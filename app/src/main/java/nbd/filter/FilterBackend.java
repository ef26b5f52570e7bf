package nbd.filter;

import java.io.IOException;
import java.util.List;
import java.util.Optional;
import nbd.backend.Backend;
import nbd.backend.ListedExport;
import nbd.backend.ThreadModel;

/** A backend around another one; closing it closes that one. */
public abstract class FilterBackend implements Backend {
  /** The backend below. */
  protected final Backend next;

  /** Wraps the next backend. */
  protected FilterBackend(Backend next) {
    this.next = next;
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
  public void close() throws IOException {
    next.close();
  }
}
