package nbd.cache;

import java.util.concurrent.CompletableFuture;

/** A reading of missing sectors of one or more blocks from the storage. */
final class Fetch {
  private final CompletableFuture<Void> end = new CompletableFuture<>();

  /** It is over, whether it has succeeded or not. */
  void finish() {
    end.complete(null);
  }

  /** Waits until it is over; no lock may be held. */
  void await() {
    end.join();
  }
}
