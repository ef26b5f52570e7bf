package nbd.multiconn;

import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * The handles that have marked something since the last flush looked: a stack that all push on
 * without a lock, and that is only ever taken as a whole. (So a node that comes back while somebody
 * pushes does no harm.)
 */
final class Inbox {
  private final AtomicReference<Enrolment.@Nullable Node> top = new AtomicReference<>();

  void push(Enrolment.Node node) {
    Enrolment.Node below;
    do {
      below = top.get();
      node.next = below;
    } while (!top.compareAndSet(below, node));
  }

  /**
   * Takes all; one thread at a time. What could not be handed over, for want of memory perhaps, is
   * in the inbox again afterwards.
   */
  void drain(Consumer<Member> to) {
    if (top.get() == null) {
      return;
    }
    Enrolment.Node node = top.getAndSet(null);
    try {
      while (node != null) {
        to.accept(node.member);
        Enrolment.Node below = node.next;
        node.giveBack();
        node = below;
      }
    } finally {
      while (node != null) {
        Enrolment.Node below = node.next;
        push(node);
        node = below;
      }
    }
  }
}
