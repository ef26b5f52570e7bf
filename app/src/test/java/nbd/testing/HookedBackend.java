package nbd.testing;

import java.io.IOException;
import java.util.function.UnaryOperator;
import nbd.filter.FilterBackend;
import nbd.filter.FilterHandle;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/** Storage whose operations a test's hook passes on, changes or refuses. */
public final class HookedBackend extends FilterBackend {
  private final UnaryOperator<ExportFacts> facts;
  private final Hook hook;

  /** A test's part in an operation. */
  @FunctionalInterface
  public interface Hook {
    /** Performs it as {@link Handle#perform} does, with or without the help of {@code next}. */
    Outcome perform(Handle next, Operation operation, Patience patience, Completion end)
        throws IOException;
  }

  /** Hooks into the next backend. */
  public HookedBackend(Backend next, Hook hook) {
    this(next, UnaryOperator.identity(), hook);
  }

  /** Hooks into the next backend, and changes its handles' facts. */
  public HookedBackend(Backend next, UnaryOperator<ExportFacts> facts, Hook hook) {
    super(next);
    this.facts = facts;
    this.hook = hook;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    return handle(next.open(exportName, readOnly), facts, hook);
  }

  /** Hooks into one handle. */
  public static Handle handle(Handle next, Hook hook) {
    return handle(next, UnaryOperator.identity(), hook);
  }

  private static Handle handle(Handle next, UnaryOperator<ExportFacts> facts, Hook hook) {
    return new FilterHandle(next, facts.apply(next.facts())) {
      @Override
      public Outcome perform(Operation operation, Patience patience, Completion end)
          throws IOException {
        return hook.perform(next, operation, patience, end);
      }
    };
  }
}
