package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.EOFException;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import nbd.threads.BlockingCalls.Question;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The choice of the thread that does a connection's work. */
@Timeout(300)
final class ConnectionThreadsTest {
  private final AtomicInteger connections = new AtomicInteger(ConnectionThreads.MOST);
  private final ConnectionThreads threads = new ConnectionThreads(connections::get);

  @AfterEach
  void close() {
    threads.close();
  }

  private <T> T run(Question<T> work) throws Exception {
    FutureTask<T> result = new FutureTask<>(() -> threads.run(work));
    Thread.startVirtualThread(result);
    return result.get();
  }

  private boolean runsOnVirtual() throws Exception {
    return run(() -> Thread.currentThread().isVirtual());
  }

  @Test
  void fewHavePlatformThreadsAndManyHaveNot() throws Exception {
    assertThat(runsOnVirtual()).isFalse();
    connections.incrementAndGet();
    assertThat(runsOnVirtual()).isTrue();
    connections.decrementAndGet();
    assertThat(runsOnVirtual()).isFalse();
  }

  @Test
  void theOtherThreadIsDueWhenTheirNumberHasChanged() throws Exception {
    run(
        () -> {
          assertThat(threads.isOtherDue()).isFalse();
          connections.incrementAndGet();
          assertThat(threads.isOtherDue()).isTrue();
          return true;
        });
    run(
        () -> {
          assertThat(threads.isOtherDue()).isFalse();
          connections.decrementAndGet();
          assertThat(threads.isOtherDue()).isTrue();
          return true;
        });
  }

  @Test
  void aFailureOfTheWorkIsThrown() {
    EOFException failure = new EOFException();
    Question<Integer> failing =
        () -> {
          throw failure;
        };
    assertThatThrownBy(() -> run(failing)).hasCause(failure);
  }

  /** Serves requests that wait until all of them have come, and returns the threads of them. */
  private List<Thread> threadsOfCalls(int count) throws Exception {
    CountDownLatch come = new CountDownLatch(count);
    List<Thread> waited = new CopyOnWriteArrayList<>();
    Runnable call =
        () -> {
          waited.add(Thread.currentThread());
          await(come);
        };
    FutureTask<Boolean> served =
        new FutureTask<>(
            () -> {
              threads.serve(
                  () -> {
                    boolean isLast = come.getCount() == 0;
                    come.countDown();
                    return isLast ? Optional.empty() : Optional.of(new WaitingCall(call, false));
                  });
              return true;
            });
    Thread.startVirtualThread(served);
    assertThat(served.get()).isTrue();
    while (waited.size() < count) {
      Thread.onSpinWait();
    }
    return waited;
  }

  @Test
  void theNextRequestsAreReceivedWhileCallsWait() throws Exception {
    assertThat(threadsOfCalls(16)).noneMatch(Thread::isVirtual).doesNotHaveDuplicates();
  }

  @Test
  void callsBeyondALimitWaitOnVirtualThreads() throws Exception {
    // The last one may get the thread of one that is over.
    assertThat(threadsOfCalls(200).stream().filter(Thread::isVirtual)).hasSizeBetween(71, 72);
  }

  @Test
  void callsOfManyConnectionsWaitOnVirtualThreads() throws Exception {
    connections.incrementAndGet();
    assertThat(threadsOfCalls(100)).allMatch(Thread::isVirtual);
  }

  @Test
  void aThreadWhoseCallIsOverServesOthers() throws Exception {
    AtomicInteger calls = new AtomicInteger();
    AtomicInteger running = new AtomicInteger();
    Question<Optional<WaitingCall>> requests =
        () -> {
          assertThat(running.incrementAndGet()).as("threads that receive").isEqualTo(1);
          assertThat(Thread.currentThread().isVirtual()).isFalse();
          running.decrementAndGet();
          return calls.incrementAndGet() <= 10_000
              ? Optional.of(new WaitingCall(() -> {}, calls.get() % 100 < 50))
              : Optional.empty();
        };
    assertThat(
            run(
                () -> {
                  threads.serve(requests);
                  return calls.get();
                }))
        .isEqualTo(10_001);
  }

  /**
   * Serves a client that waits for each reply, and in whose last call it sends one more request.
   */
  private static Question<Optional<WaitingCall>> requestsOneByOne(int count, Runnable call) {
    AtomicInteger received = new AtomicInteger();
    CountDownLatch more = new CountDownLatch(1);
    return () -> {
      int number = received.incrementAndGet();
      if (number < count) {
        return Optional.of(new WaitingCall(call, true));
      }
      if (number == count) {
        return Optional.of(new WaitingCall(() -> await(more), true));
      }
      more.countDown();
      return Optional.empty();
    };
  }

  private static void await(CountDownLatch latch) {
    try {
      latch.await();
    } catch (InterruptedException impossible) {
      throw new AssertionError(impossible);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 8, 9, 10, 32, 33})
  void aCallThatTakesLongDoesNotKeepLaterRequestsFromBeingReceived(int count) throws Exception {
    for (int i = 0; i < 20; i++) {
      run(
          () -> {
            threads.serve(requestsOneByOne(count, () -> {}));
            return true;
          });
    }
  }

  @Test
  void noThreadIsWokenForTheNextRequestOfAClientThatWaitsForEachReply() throws Exception {
    int count = 1000;
    AtomicInteger woken = new AtomicInteger();
    RelayWatch blind = new RelayWatch();
    blind.close();
    try (ExecutorService pool = Executors.newCachedThreadPool()) {
      Executor counting =
          work -> {
            woken.incrementAndGet();
            pool.execute(work);
          };
      AtomicInteger received = new AtomicInteger();
      Runnable call = () -> LockSupport.parkNanos(20_000);
      assertThat(
              Relay.serve(
                  () ->
                      received.incrementAndGet() <= count
                          ? Optional.of(new WaitingCall(call, true))
                          : Optional.empty(),
                  new Relay.Threads(counting, blind)))
          .isTrue();
    }
    // The first one, one for each of the first calls, and one for each that probes.
    assertThat(woken).hasValueLessThanOrEqualTo(1 + 8 + count / 32);
  }

  @Test
  void aFailureBetweenCallsIsThrown() {
    AtomicInteger calls = new AtomicInteger();
    EOFException failure = new EOFException();
    Question<Optional<WaitingCall>> failing =
        () -> {
          if (calls.incrementAndGet() < 20) {
            return Optional.of(new WaitingCall(() -> {}, false));
          }
          throw failure;
        };
    assertThatThrownBy(
            () ->
                run(
                    () -> {
                      threads.serve(failing);
                      return true;
                    }))
        .hasCause(failure);
  }

  @Test
  void withoutAPlatformThreadTheVirtualOneServes() throws Exception {
    threads.close();
    assertThat(threadsOfCalls(20)).allMatch(Thread::isVirtual);
  }

  @Test
  void callsThatWaitWhenNoFurtherThreadCanBeHadAreMade() throws Exception {
    List<Boolean> kinds = new CopyOnWriteArrayList<>();
    AtomicInteger calls = new AtomicInteger();
    run(
        () -> {
          threads.serve(
              () -> {
                if (calls.incrementAndGet() == 3) {
                  threads.close();
                }
                return calls.get() > 6
                    ? Optional.empty()
                    : Optional.of(
                        new WaitingCall(
                            () -> kinds.add(Thread.currentThread().isVirtual()), false));
              });
          return true;
        });
    while (kinds.size() < 6) {
      // The last calls may go on when no request will come.
      Thread.onSpinWait();
    }
    assertThat(kinds).hasSize(6).containsOnly(false);
  }

  @Test
  void withoutAPlatformThreadTheVirtualOneDoesTheWork() throws Exception {
    threads.close();
    assertThat(runsOnVirtual()).isTrue();
  }
}
