package nbd.filter;

import java.io.IOException;
import java.util.Optional;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;

/**
 * A handle around another one. A filter says in {@link #perform}, and nowhere else, what becomes of
 * an operation.
 */
public abstract class FilterHandle extends Handle {
  /** The handle below. */
  protected final Handle next;

  /** Wraps the next handle, and closes it when it is closed. */
  protected FilterHandle(Handle next) {
    this(next, next.facts());
  }

  /** Wraps the next handle, and shows other facts than it does. */
  protected FilterHandle(Handle next, ExportFacts shown) {
    super(shown);
    this.next = next;
  }

  @Override
  public Optional<String> broken() {
    return next.broken();
  }

  @Override
  public void push() {
    next.push();
  }

  @Override
  public void close() throws IOException {
    next.close();
  }
}
