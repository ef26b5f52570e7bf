package nbd.rbd;

import java.io.IOException;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Operation;
import nbd.threads.BlockingCalls;

/**
 * A handle on an image that is open for this connection only, with a cache of librbd's. Its flush
 * also empties the cache, so that it reads what others have written and flushed.
 *
 * <p>Some operations run alone. During a flush and the emptying of the cache, a write would be
 * missing from the flush, and a read would fill the cache again with what it had read before. A
 * trim, or a zeroing, takes what is dirty out of the cache before the cluster knows of it: a read
 * meanwhile would return what the cluster has, which is older than both.
 */
final class CachedHandle extends RbdHandle {
  private final ExclusiveGate gate = new ExclusiveGate();

  CachedHandle(ExportFacts facts, Image image, BlockingCalls blocking, BlockingCalls.Call closing) {
    super(facts, image, blocking, closing);
  }

  @Override
  boolean begins(Operation operation, Completion end) {
    return switch (operation.command()) {
      case FLUSH, TRIM, WRITE_ZEROES, BLOCK_STATUS -> false;
      default -> {
        boolean passes = gate.tryEnter();
        if (passes) {
          beginPassed(operation, end);
        }
        yield passes;
      }
    };
  }

  private void beginPassed(Operation operation, Completion end) {
    boolean begun = false;
    try {
      image.begin(
          operation,
          failure -> {
            gate.leave();
            end.done(failure);
          });
      begun = true;
    } finally {
      if (!begun) {
        gate.leave();
      }
    }
  }

  @Override
  void perform(Operation operation) throws IOException {
    switch (operation.command()) {
      case FLUSH ->
          alone(
              () -> {
                super.perform(operation);
                blocking.run(image::forget);
              });
      case TRIM, WRITE_ZEROES -> alone(() -> super.perform(operation));
      default -> {
        gate.enter();
        try {
          super.perform(operation);
        } finally {
          gate.leave();
        }
      }
    }
  }

  private void alone(BlockingCalls.Call call) throws IOException {
    gate.close();
    try {
      call.run();
    } finally {
      gate.open();
    }
  }
}
