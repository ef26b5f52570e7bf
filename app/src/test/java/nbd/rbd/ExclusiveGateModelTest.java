package nbd.rbd;

import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.jetbrains.lincheck.Lincheck;
import org.junit.jupiter.api.Test;

/** The interleavings of operations that pass and of operations that run alone. */
final class ExclusiveGateModelTest {
  /** Static: Lincheck switches threads only where they use what all of them can reach. */
  private static final AtomicReference<Object> SHARED = new AtomicReference<>();

  private static final int INVOCATIONS = Integer.getInteger("nbd.rbd.invocations", 1000);

  /** A gate behind which is counted what runs. */
  private static final class Counted {
    final ExclusiveGate gate = new ExclusiveGate();
    final AtomicInteger operations = new AtomicInteger();
    final AtomicInteger alone = new AtomicInteger();

    void operation() {
      if (!gate.tryEnter()) {
        gate.enter();
      }
      operations.incrementAndGet();
      check(alone.get() == 0, "an operation runs beside an exclusive one");
      operations.decrementAndGet();
      gate.leave();
    }

    void exclusive() {
      gate.close();
      check(alone.incrementAndGet() == 1, "two alone run at the same time");
      check(operations.get() == 0, "an exclusive operation runs beside another one");
      alone.decrementAndGet();
      gate.open();
    }
  }

  private static void join(Thread thread) {
    try {
      thread.join();
    } catch (InterruptedException impossible) {
      throw new AssertionError(impossible);
    }
  }

  private static void check(boolean holds, String otherwise) {
    if (!holds) {
      throw new AssertionError(otherwise);
    }
  }

  @Test
  void nothingRunsBesideAnExclusiveOperation() {
    Lincheck.runConcurrentTest(
        INVOCATIONS,
        () -> {
          Counted counted = new Counted();
          SHARED.set(counted);
          Thread operation = new Thread(counted::operation);
          Thread exclusive = new Thread(counted::exclusive);
          operation.start();
          exclusive.start();
          counted.operation();
          counted.exclusive();
          join(operation);
          join(exclusive);
        });
  }
}
