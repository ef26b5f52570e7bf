package nbd.rbd;

import java.io.IOException;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.threads.BlockingCalls;

/** A connection's handle on an image that all connections share. */
class RbdHandle extends Handle {
  private static final long MOST_ZEROES = 64L << 20;

  final Image image;
  final BlockingCalls blocking;
  private final BlockingCalls.Call closing;

  RbdHandle(ExportFacts facts, Image image, BlockingCalls blocking, BlockingCalls.Call closing) {
    super(facts);
    this.image = image;
    this.blocking = blocking;
    this.closing = closing;
  }

  @Override
  public Optional<String> broken() {
    return image.lost();
  }

  @Override
  public Outcome perform(Operation operation, Patience patience, Completion end)
      throws IOException {
    return switch (patience) {
      case AT_ONCE -> Outcome.DECLINED;
      case LATER -> begins(operation, end) ? Outcome.BEGUN : Outcome.DECLINED;
      case WAIT -> {
        perform(operation);
        yield Outcome.DONE;
      }
    };
  }

  /** Begins an operation; false if it has to wait first. */
  boolean begins(Operation operation, Completion end) {
    if (operation.command() == Command.BLOCK_STATUS || isLong(operation)) {
      return false;
    }
    image.begin(operation, end);
    return true;
  }

  /** Says whether it writes so many zeroes that the cluster might not do it in time at once. */
  private static boolean isLong(Operation operation) {
    return operation.flags().has(CommandFlag.NO_HOLE) && operation.length() > MOST_ZEROES;
  }

  /** Performs an operation, however long it takes. */
  void perform(Operation operation) throws IOException {
    if (operation.command() == Command.BLOCK_STATUS) {
      blocking.run(() -> image.status(operation));
    } else if (isLong(operation)) {
      long end = operation.offset() + operation.length();
      for (long at = operation.offset(); at < end; at += MOST_ZEROES) {
        long length = Math.min(end - at, MOST_ZEROES);
        await(Operation.onRange(operation.command(), at, length, operation.flags()));
      }
    } else {
      await(operation);
    }
  }

  private void await(Operation operation) throws IOException {
    CompletableFuture<Optional<IOException>> end = new CompletableFuture<>();
    image.begin(operation, failure -> end.complete(Optional.ofNullable(failure)));
    Optional<IOException> failure = end.join();
    if (failure.isPresent()) {
      throw failure.get();
    }
  }

  @Override
  public void close() throws IOException {
    closing.run();
  }
}
