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
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Patience;
import nbd.storage.ThreadModel;
import nbd.testing.HookedBackend;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** An Error at an awkward moment fails what it meets, and leaves nobody waiting for it. */
@Timeout(120)
class ShortOfMemoryTest {
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
      scene.write(0);
      scene.write(1);
      scene.write(2);

      assertThat(scene.flushed(3)).containsExactlyInAnyOrder(0, 1, 2);
      assertThat(scene.flushed(3)).isEmpty();
    }
  }

  @Test
  void aFlushThatWaitsForAnotherIsMadeAlsoIfThereIsNoThreadForIt() throws IOException {
    Scene scene = Scene.emulating(3, NO_THREADS);
    scene.write(0);
    Gate inFlush = scene.stopFlushes(0);
    Running first = scene.startFlush(1);
    inFlush.awaitReached();
    scene.write(0);
    Running second = scene.startFlush(2);
    second.awaitParked();
    scene.below(0).onFlush = () -> {};

    inFlush.open();
    first.join();
    second.join();

    assertThat(scene.fake.takeFlushed()).containsExactly(0, 0);
    assertThat(scene.flushed(1)).isEmpty();
  }

  @Test
  void anErrorInAFlushFailsAllWhoWaitForItAndNoOtherFlush() throws IOException {
    Scene scene = Scene.emulating(3);
    scene.write(0);
    Gate inFlush = new Gate();
    scene.below(0).onFlush =
        () -> {
          inFlush.run();
          throw new OutOfMemoryError("for a test");
        };
    Running first = scene.startFlush(1);
    inFlush.awaitReached();
    Running second = scene.startFlush(2);
    second.awaitParked();

    inFlush.open();

    assertThatThrownBy(first::join).hasMessageContaining("for a test");
    assertThatThrownBy(second::join).hasMessageContaining("for a test");
    scene.below(0).onFlush = () -> {};
    assertThat(scene.flushed(1)).containsExactly(0);
    scene.handle(0).close();
  }

  @Test
  void anErrorAfterAFlushFailsItAndLeavesItsHandle() throws IOException {
    Scene scene = Scene.of(FakeBackend.MULTI_CONN, MultiConnMode.AUTO, TrackDirty.CONNECTION, 2);
    scene.write(0);
    scene.below(0).broken =
        () -> {
          throw new OutOfMemoryError("for a test");
        };

    assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("for a test");
    scene.below(0).broken = Optional::empty;
    assertThat(scene.flushed(1)).containsExactly(1);
    scene.handle(1).close();
    scene.handle(0).close();
    assertThat(scene.filter.groups()).isZero();
  }

  @Test
  void aConnectionWhoseLastFlushEndsWithAnErrorIsClosedAndTheOthersAreTold() throws IOException {
    Scene scene = Scene.emulating(2);
    scene.write(0);
    scene.below(0).onFlush =
        () -> {
          throw new StackOverflowError();
        };

    assertThatThrownBy(() -> scene.handle(0).close()).hasMessageContaining("StackOverflow");

    assertThat(scene.below(0).closed).isTrue();
    assertThatThrownBy(() -> scene.flush(1)).hasMessageContaining("lost");
    scene.flush(1);
  }

  /** As if its thread had died between asking for it and running it. */
  @Test
  void aFlushThatNobodyHasBegunIsRunByTheNextWhoNeedsIt() throws IOException {
    FakeBackend fake = new FakeBackend(FakeBackend.WRITABLE);
    Decision decision =
        Decision.of(MultiConnSettings.DEFAULT, FakeBackend.WRITABLE, ThreadModel.PARALLEL);
    Group group = new Group(MultiConnSettings.DEFAULT, NO_THREADS);
    Handle handle = fake.open("", false);
    FlushScope scope = group.scopeFor("", handle.facts().identity(), decision);
    Member member = new Member(handle, decision, scope);
    group.attach(member);
    member.wrote(member.beginWrite());
    group.lock.lock();
    try {
      scope.request(FlushScope.Need.WRITES, member);
    } finally {
      group.lock.unlock();
    }

    Running flush = Running.start(() -> member.flush(false));
    flush.join();

    assertThat(fake.takeFlushed()).containsExactly(0);
  }

  @Test
  void aWriteThatCouldNotBeEnlistedIsFoundByTheNextFlush() {
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

  private static Member member() {
    try {
      FakeBackend fake = new FakeBackend(FakeBackend.WRITABLE);
      Decision decision =
          Decision.of(MultiConnSettings.DEFAULT, FakeBackend.WRITABLE, ThreadModel.PARALLEL);
      Group group = new Group(MultiConnSettings.DEFAULT, Runnable::run);
      return new Member(fake.open("", false), decision, group.scopeFor("", "", decision));
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  @Test
  void aReadThatEndsThoughBeginningItFailedIsCountedOnce() throws IOException {
    FakeBackend fake = new FakeBackend(FakeBackend.WRITABLE);
    MultiConnFilter filter =
        new MultiConnFilter(
            new HookedBackend(
                fake,
                (next, operation, patience, end) -> {
                  if (patience != Patience.LATER) {
                    return next.perform(operation, patience, end);
                  }
                  end.done(null);
                  throw new OutOfMemoryError("for a test");
                }),
            MultiConnSettings.DEFAULT);
    Handle reader = filter.open("", false);
    Handle writer = filter.open("", false);
    assertThatThrownBy(() -> reader.begin(Operation.read(ByteBuffer.allocate(1), 0), failure -> {}))
        .isInstanceOf(OutOfMemoryError.class);
    Calls.write(writer);

    Running flush = Running.start(writer::flush);
    flush.join();

    assertThat(fake.takeFlushed()).containsExactly(1, 0);
  }
}
