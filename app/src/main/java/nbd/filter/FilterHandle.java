package nbd.filter;

import java.io.IOException;
import java.util.Optional;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/** A handle around another one. A filter overrides {@link #perform}, which sees every operation. */
public class FilterHandle extends Handle {
  /** The handle below. */
  protected final Handle next;

  /** Wraps the next handle, and closes it when it is closed. */
  protected FilterHandle(Handle next) {
    this(next, next.facts());
  }

  /** Wraps the next handle, and shows other facts. */
  protected FilterHandle(Handle next, ExportFacts shown) {
    super(shown);
    this.next = next;
  }

  @Override
  public Optional<String> broken() {
    return next.broken();
  }

  @Override
  public Outcome perform(Operation operation, Patience patience, Completion end)
      throws IOException {
    return next.perform(operation, patience, end);
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
