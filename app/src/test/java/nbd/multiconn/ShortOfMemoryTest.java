package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executor;
import java.util.concurrent.RejectedExecutionException;
import nbd.protocol.NbdException;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Patience;
import nbd.storage.ThreadModel;
import nbd.testing.FakeBackend;
import nbd.testing.Gate;
import nbd.testing.HookedBackend;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Errors at any moment: each fails the calls that it meets, and leaves nobody waiting. */
@Timeout(300)
class ShortOfMemoryTest {
  private final FakeBackend fake = Scene.storage(Scene.WRITABLE);

  private static final Executor NO_THREADS =
      task -> {
        throw new OutOfMemoryError("unable to create native thread");
      };

  private static final Executor CLOSED =
      task -> {
        throw new RejectedExecutionException("no more");
      };

  @Test
  void aFlushForWhichThereIsNoThreadIsMadeByTheConnectionsOwn() throws IOException {
    for (Executor executor : List.of(NO_THREADS, CLOSED)) {
      Scene scene = Scene.emulating(4, executor);
      scene.write(0, 1, 2);

      assertThat(scene.flushed(3)).containsExactlyInAnyOrder(0, 1, 2);
      assertThat(scene.flushed(3)).isEmpty();
    }
  }

  @Test
  void aFlushThatWaitsForAnotherIsMadeAlsoIfThereIsNoThreadForIt() throws IOException {
    Scene scene = Scene.emulating(3, NO_THREADS);
    scene.write(0);
    Gate inFlush = scene.stopFlush(0);
    Running first = scene.startFlush(1);
    inFlush.awaitReached();
    scene.write(0);
    Running second = scene.startFlush(2);
    second.awaitParked();

    inFlush.open();
    first.join();
    second.join();

    assertThat(scene.takeFlushed()).containsExactly(0, 0);
    assertThat(scene.flushed(1)).isEmpty();
  }

  @Test
  void anErrorOrABugInAFlushFailsAllThatWaitForItAndNoOtherFlush() throws IOException {
    for (Throwable failure :
        List.of(new OutOfMemoryError("for a test"), new IllegalStateException("for a test"))) {
      Scene scene = Scene.emulating(3);
      scene.write(0);
      Gate inFlush = scene.stopAndFailFlushes(0, failure);
      Running first = scene.startFlush(1);
      inFlush.awaitReached();
      Running second = scene.startFlush(2);
      second.awaitParked();

      inFlush.open();

      for (Running flush : List.of(first, second)) {
        assertThatThrownBy(flush::join)
            .isInstanceOf(NbdException.class)
            .hasMessageContaining("for a test");
      }
      scene.heal(0);
      assertThat(scene.flushed(1)).containsExactly(0);
      scene.close(0);
    }
  }

  @Test
  void anErrorAfterAFlushFailsItAndLeavesItsHandle() throws IOException {
    Scene scene = Scene.multiConn(2);
    scene.write(0);
    scene
        .below(0)
        .broken(
            () -> {
              throw new OutOfMemoryError("for a test");
            });

    assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("for a test");
    scene.below(0).broken(Optional::empty);
    assertThat(scene.flushed(1)).containsExactly(1);
    scene.assertForgottenAfterClosing(1, 0);
  }

  @Test
  void aConnectionWhoseLastFlushEndsWithAnErrorIsClosedAndTheLossReported() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    scene.failFlushes(0, new StackOverflowError());

    assertThatThrownBy(() -> scene.close(0)).hasMessageContaining("StackOverflow");

    assertThat(scene.below(0).isOpen()).isFalse();
    scene.assertLossReportedOnce(1);
  }

  /** A flush was requested, and its thread died before running it. */
  @Test
  void aFlushThatNobodyHasBegunIsRunByTheNextThatNeedsIt() throws IOException {
    Member member = member();
    member.wrote(member.beginWrite());
    try (var _ = member.scope.group.locked()) {
      member.scope.request(FlushScope.Need.WRITES, member);
    }

    Running.start(() -> member.flush(false)).join();

    assertThat(fake.flushed()).containsExactly(0);
  }

  @Test
  void aWriteThatCouldNotBeListedIsFoundByTheNextFlush() throws IOException {
    Queue<Member> inbox = new ConcurrentLinkedQueue<>();
    List<Member> all = new ArrayList<>();
    List<Member> found = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      Member member = member();
      all.add(member);
      member.writes.enrolment.enrol(inbox, member);
    }

    assertThatThrownBy(
            () ->
                Group.drain(
                    inbox,
                    member -> {
                      if (member == all.get(1)) {
                        throw new OutOfMemoryError("for a test");
                      }
                      found.add(member);
                    }))
        .isInstanceOf(OutOfMemoryError.class);
    Group.drain(inbox, found::add);

    assertThat(found).containsExactlyInAnyOrderElementsOf(all);
  }

  private Member member() throws IOException {
    Handle handle = fake.open("", false);
    Decision decision =
        Decision.of(MultiConnSettings.DEFAULT, handle.capabilities(), ThreadModel.PARALLEL);
    Group group = new Group(MultiConnSettings.DEFAULT, NO_THREADS);
    Member member = new Member(handle, decision, group.scopeFor("", "", decision));
    group.attach(member);
    return member;
  }

  @Test
  void aReadThatEndsThoughBeginningItFailedIsCountedOnce() throws IOException {
    Scene scene =
        Scene.over(
            storage ->
                new HookedBackend(
                    storage,
                    (next, operation, patience, end) -> {
                      if (patience != Patience.LATER) {
                        return next.perform(operation, patience, end);
                      }
                      end.done(null);
                      throw new OutOfMemoryError("for a test");
                    }),
            2);
    Operation read = Operation.read(ByteBuffer.allocate(1), 0);
    assertThatThrownBy(() -> scene.handle(0).begin(read, failure -> {}))
        .isInstanceOf(OutOfMemoryError.class);
    scene.write(1);

    scene.startFlush(1).join();

    assertThat(scene.takeFlushed()).containsExactly(1, 0);
  }
}
