package nbd.file;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Function;
import nbd.storage.ListedExport;
import org.tinylog.Logger;

/**
 * The search for the entries of a directory that are served, while the storage of some may not
 * answer. Another thread looks at each entry; one that takes longer than {@link #PATIENCE} is left
 * out, and not looked at again before that look has ended. So a file that hangs keeps one thread
 * waiting, however often the directory is listed.
 */
final class Listing {
  /** The longest wait for what the system tells of a file. */
  static final Duration PATIENCE = Duration.ofSeconds(2);

  private final Function<Path, Optional<ListedExport>> look;
  private final Executor threads;
  private final Duration patience;
  private final Set<Path> silent = ConcurrentHashMap.newKeySet();

  /**
   * Looks at nothing yet.
   *
   * @param look tells whether and as what an entry is served; may wait for storage
   * @param threads that look
   */
  Listing(Function<Path, Optional<ListedExport>> look, Executor threads, Duration patience) {
    this.look = look;
    this.threads = threads;
    this.patience = patience;
  }

  /**
   * Finds the entries that are served, of those that answer.
   *
   * @throws IOException if no thread could be started
   */
  List<ListedExport> served(List<Path> entries) throws IOException {
    List<ListedExport> found = new ArrayList<>();
    for (Path entry : entries) {
      if (!silent.contains(entry)) {
        answer(entry).ifPresent(found::add);
      }
    }
    return found;
  }

  private Optional<ListedExport> answer(Path entry) throws IOException {
    CompletableFuture<Optional<ListedExport>> answer;
    try {
      answer = CompletableFuture.supplyAsync(() -> look.apply(entry), threads);
    } catch (OutOfMemoryError noThread) {
      throw new IOException("no thread could be started to list the directory", noThread);
    }
    try {
      return answer.copy().orTimeout(patience.toNanos(), TimeUnit.NANOSECONDS).join();
    } catch (CompletionException failure) {
      if (failure.getCause() instanceof TimeoutException) {
        Logger.warn("{} is not listed: the system does not tell what it is", entry.getFileName());
        silent.add(entry);
        var _ = answer.whenComplete((late, failed) -> silent.remove(entry));
      } else {
        Logger.debug(failure);
      }
      return Optional.empty();
    }
  }
}
