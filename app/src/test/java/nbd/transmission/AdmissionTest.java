package nbd.transmission;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
import nbd.testing.Eventually;
import nbd.testing.ThirteenBytes;
import nbd.transmission.Admission.Reservation;
import nbd.transmission.Admission.Share;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * Requests are admitted while there is memory, in order, and clients that hold others up are cut.
 */
@Timeout(60)
final class AdmissionTest {
  private static final long MIB = 1 << 20;
  private static final long BOUND = Admission.MINIMUM_BYTES;
  private static final int OWN = Admission.OWN_BYTES;
  private static final long TICK = Duration.ofMillis(250).toNanos();

  private final Admission admission = new Admission(BOUND, Duration.ofSeconds(2));
  private final AtomicBoolean cut = new AtomicBoolean();
  private final Share share = admission.open(() -> cut.set(true));
  private final Share other = admission.open(() -> {});

  private static boolean isParked(Thread thread) {
    return thread.getState() == Thread.State.WAITING;
  }

  /** A thread that waits for so many bytes and gives them back. */
  private static Thread waiting(Share share, long bytes) throws InterruptedException {
    Thread thread = Thread.ofVirtual().start(() -> share.admit(bytes).release());
    Eventually.isTrue("it waits", () -> isParked(thread));
    return thread;
  }

  private void tick(int times) {
    for (int i = 0; i < times; i++) {
      admission.disconnectStalled(TICK);
    }
  }

  @Test
  void aConnectionHasSoManyPlaces() {
    List<Reservation> reservations = new ArrayList<>();
    for (int i = 0; i < Admission.MAXIMUM_REQUESTS; i++) {
      reservations.add(share.tryAdmit(0).orElseThrow());
    }
    assertThat(share.tryAdmit(0)).isEmpty();
    reservations.getFirst().release();
    reservations.getFirst().release();
    assertThat(share.tryAdmit(0)).isPresent();
    assertThat(share.tryAdmit(0)).as("a reservation that was left twice").isEmpty();
  }

  @Test
  void aConnectionHoldsSoManyBytesOrOneRequest() {
    Admission large = new Admission(1L << 30, Duration.ofSeconds(2));
    Share one = large.open(() -> {});
    Reservation alone = one.tryAdmit(Admission.MAXIMUM_BYTES + 1).orElseThrow();
    assertThat(one.tryAdmit(0)).isEmpty();
    alone.release();
    assertThat(one.tryAdmit(Admission.MAXIMUM_BYTES)).isPresent();
    assertThat(one.tryAdmit(0)).isPresent();
    assertThat(one.tryAdmit(1)).isEmpty();
  }

  @Test
  void whoWaitsForItsOwnRequestsGetsItsPlaceWhenOneLeaves() throws Exception {
    Admission large = new Admission(1L << 30, Duration.ofSeconds(2));
    Share one = large.open(() -> {});
    Reservation first = one.tryAdmit(Admission.MAXIMUM_BYTES).orElseThrow();
    Thread waiting = waiting(one, MIB);
    Thread last = Thread.ofVirtual().start(one::awaitNone);
    Eventually.isTrue("it waits", () -> isParked(last));
    first.release();
    waiting.join();
    last.join();
    assertThat(large.held()).isZero();
  }

  @Test
  void whatAConnectionHasOfItsOwnNobodyElseCanTake() {
    assertThat(other.tryAdmit(BOUND + OWN)).isPresent();
    assertThat(other.tryAdmit(1)).isEmpty();
    assertThat(share.tryAdmit(OWN)).isPresent();
    assertThat(share.tryAdmit(1)).isEmpty();
  }

  @Test
  void aReadGetsNoMemoryWhenHalfIsUsedAndNeverWaits() {
    Reservation half = other.tryAdmit(BOUND / 2 + OWN).orElseThrow();
    assertThat(share.tryAdmitReply(OWN + 1)).isEmpty();
    assertThat(share.tryAdmitReply(OWN)).as("its own").isPresent();
    half.release();
    assertThat(share.tryAdmitReply(MIB)).isPresent();
  }

  @Test
  void nobodyTakesWhatOthersWaitFor() throws Exception {
    Reservation some = other.tryAdmit(20 * MIB).orElseThrow();
    Thread waiting = waiting(share, 32 * MIB);
    Share third = admission.open(() -> {});
    assertThat(third.tryAdmit(OWN + 1)).as("overtakes").isEmpty();
    assertThat(third.tryAdmitReply(OWN + 1)).as("overtakes").isEmpty();
    assertThat(third.tryAdmit(OWN)).as("its own").isPresent();
    some.release();
    waiting.join();
  }

  /** Others announce 32 MiB each, and keep it when they get it, until they are cut. */
  @Test
  void whoWantsLittleDoesNotWaitForAllWhoWantedMuchBefore() throws Exception {
    Admission admission = new Admission(40 * MIB, Duration.ofSeconds(2));
    Share modest = admission.open(() -> {});
    AtomicLong admitted = new AtomicLong();
    Semaphore cuts = new Semaphore(0);
    List<Thread> greedy = new ArrayList<>();
    for (int i = 0; i < 10; i++) {
      Share mine = admission.open(() -> {});
      greedy.add(
          Thread.ofVirtual()
              .start(
                  () -> {
                    Reservation reservation = mine.admit(32 * MIB);
                    admitted.incrementAndGet();
                    cuts.acquireUninterruptibly();
                    reservation.release();
                  }));
    }
    for (int cut = 1; cut <= greedy.size(); cut++) {
      long next = cut;
      Eventually.isTrue("the next one has got it", () -> admitted.get() == next);
      for (int n = 0; n < 20; n++) {
        // It would wait for ever behind any of the others.
        modest.admit(MIB).release();
      }
      cuts.release();
    }
    for (Thread thread : greedy) {
      thread.join();
    }
  }

  /** Others that always want little go first only until they had as much. */
  @Test
  void whoWantsMuchWaitsForABoundedNumberOfBytes() throws Exception {
    Reservation last = other.tryAdmit(BOUND + OWN).orElseThrow();
    Thread much = waiting(share, 32 * MIB);
    // What one of the others takes beyond its own bytes counts, and one may have come before.
    long limit = Admission.OVERTAKING * 32 * MIB / (4 * MIB - OWN) + 1;
    long rounds = 0;
    while (much.isAlive()) {
      Share mine = admission.open(() -> {});
      Reservation held = last;
      List<Reservation> next = new ArrayList<>();
      Thread little = Thread.ofVirtual().start(() -> next.add(mine.admit(4 * MIB)));
      Eventually.isTrue("it waits", () -> isParked(little) || !little.isAlive());
      held.release();
      little.join();
      last = next.getFirst();
      rounds++;
      if (rounds > limit) {
        last.release();
        much.join();
        break;
      }
    }
    assertThat(rounds).isBetween(2L, limit);
  }

  /** What it needs of the others' memory shrinks when its own requests leave. */
  @Test
  void whoWaitsIsAdmittedWhenItsOwnMemoryIsFree() throws Exception {
    assertThat(other.tryAdmit(BOUND + OWN)).isPresent();
    Reservation own = share.tryAdmit(OWN).orElseThrow();
    Thread thread = waiting(share, OWN);
    own.release();
    thread.join();
  }

  /** The first who waits may do so for storage that hangs. */
  @Test
  void whoseOwnMemorySufficesDoesNotWaitBehindThoseWhoNeedMore() throws Exception {
    assertThat(other.tryAdmit(BOUND + OWN)).isPresent();
    Share greedy = admission.open(() -> {});
    assertThat(greedy.tryAdmit(OWN)).isPresent();
    waiting(greedy, OWN);
    Reservation own = share.tryAdmit(OWN).orElseThrow();
    Thread thread = waiting(share, OWN);
    own.release();
    thread.join();
  }

  /** A READ's reply is a little longer than its data, and its buffer a power of two. */
  @Test
  void aReadOrTwoWritesOfTheUsualLengthFitInAConnectionsOwnMemory() {
    assertThat(other.tryAdmit(BOUND + OWN)).isPresent();
    int usual = 256 << 10;
    List<Reservation> writes = new ArrayList<>();
    for (int i = 0; i < 2; i++) {
      writes.add(share.tryAdmit(Admission.bytesFor(usual)).orElseThrow());
    }
    writes.forEach(Reservation::release);
    assertThat(share.tryAdmitReply(Admission.bytesFor(32 + usual))).isPresent();
  }

  @Test
  void threadsNeverHoldMoreThanTheBound() throws Exception {
    int count = 8;
    AtomicLong held = new AtomicLong();
    AtomicLong most = new AtomicLong();
    CountDownLatch done = new CountDownLatch(count);
    for (int i = 0; i < count; i++) {
      Random random = new Random(i);
      Share mine = admission.open(() -> {});
      Thread.ofVirtual()
          .start(
              () -> {
                for (int n = 0; n < 2000; n++) {
                  long bytes = random.nextLong(32 * MIB);
                  Reservation reservation =
                      (n % 3 == 0 ? mine.tryAdmitReply(bytes) : mine.tryAdmit(bytes))
                          .orElseGet(() -> mine.admit(bytes));
                  most.accumulateAndGet(held.addAndGet(bytes), Math::max);
                  held.addAndGet(-bytes);
                  if (n % 5 == 0) {
                    // Left by another thread.
                    Thread.ofVirtual().start(reservation::release);
                  } else {
                    reservation.release();
                  }
                }
                done.countDown();
              });
    }
    Eventually.await(done);
    Eventually.isTrue("all came back", () -> admission.held() == 0);
    assertThat(most.get()).isLessThanOrEqualTo(BOUND + (long) count * OWN);
    assertThat(share.tryAdmit(BOUND + OWN)).as("all of it").isPresent();
  }

  @Test
  void aSenderThatStallsIsCutWhileOthersWait() throws Exception {
    Reservation reservation = share.tryAdmit(BOUND + OWN).orElseThrow();
    Thread waiting = waiting(other, MIB);
    share.receiving().begin();
    tick(8);
    assertThat(cut).as("within its patience").isFalse();
    tick(1);
    assertThat(cut).isTrue();
    reservation.release();
    waiting.join();
  }

  @Test
  void aSenderThatHasStalledForLongIsCutAsSoonAsOthersWaitAndNotBefore() throws Exception {
    Reservation reservation = share.tryAdmit(BOUND + OWN).orElseThrow();
    share.receiving().begin();
    tick(100);
    assertThat(cut).as("while nobody waits").isFalse();
    Thread waiting = waiting(other, MIB);
    tick(1);
    assertThat(cut).isTrue();
    reservation.release();
    waiting.join();
  }

  @Test
  void aSenderThatGoesOnAfterALongStallHasSoonCaughtUp() throws Exception {
    Reservation reservation = share.tryAdmit(BOUND + OWN).orElseThrow();
    share.receiving().begin();
    tick(100);
    share.receiving().moved(BOUND / 8);
    tick(1);
    Thread waiting = waiting(other, MIB);
    tick(2);
    assertThat(cut).isFalse();
    reservation.release();
    waiting.join();
  }

  /** 64 KiB each 1.5 s: it would take the longest write 13 minutes. */
  @Test
  void aSenderThatDribblesIsCutWhileOthersWait() throws Exception {
    Reservation reservation = share.tryAdmit(BOUND + OWN).orElseThrow();
    share.receiving().begin();
    Thread waiting = waiting(other, MIB);
    for (int i = 0; i < 4 && !cut.get(); i++) {
      share.receiving().moved(64 << 10);
      tick(6);
    }
    assertThat(cut).isTrue();
    reservation.release();
    waiting.join();
  }

  /** Who holds little may be slow. */
  @Test
  void aSenderThatMovesWhatItHoldsInTimeIsNotCut() throws Exception {
    long bytes = BOUND + OWN;
    Reservation reservation = share.tryAdmit(bytes).orElseThrow();
    share.receiving().begin();
    Thread waiting = waiting(other, MIB);
    for (int i = 0; i < 400; i++) {
      share.receiving().moved(bytes / 40 + 1);
      tick(1);
    }
    assertThat(cut).isFalse();
    reservation.release();
    waiting.join();
  }

  @Test
  void aClientThatTakesNoRepliesIsCutWhileOthersWaitForWhatItHolds() throws Exception {
    Reservation reservation = share.tryAdmitReply(BOUND / 2).orElseThrow();
    Reservation rest = other.tryAdmit(17 * MIB).orElseThrow();
    share.sending().begin();
    tick(100);
    assertThat(cut).as("while nobody waits").isFalse();
    Thread waiting = waiting(other, 5 * MIB);
    tick(1);
    assertThat(cut).isTrue();
    reservation.release();
    rest.release();
    waiting.join();
  }

  @Test
  void whoHoldsNothingButItsOwnMemoryIsNotCut() throws Exception {
    assertThat(share.tryAdmit(OWN)).isPresent();
    share.sending().begin();
    Reservation all = other.tryAdmit(BOUND + OWN).orElseThrow();
    Thread waiting = waiting(admission.open(() -> {}), MIB);
    tick(100);
    assertThat(cut).isFalse();
    all.release();
    waiting.join();
  }

  @Test
  void whoWaitsForStorageIsNotCut() throws Exception {
    Reservation reservation = share.tryAdmit(BOUND + OWN).orElseThrow();
    share.receiving().begin();
    share.receiving().end();
    Thread waiting = waiting(other, MIB);
    tick(100);
    assertThat(cut).isFalse();
    reservation.release();
    waiting.join();
  }

  /** Data is copied where it cannot be sent straight from the storage. */
  @Test
  void whoWaitsForStorageInTheMiddleOfAReplyIsNotCut() throws Exception {
    Reservation reservation = share.tryAdmit(BOUND + OWN).orElseThrow();
    Thread waiting = waiting(other, MIB);
    Replies replies =
        new Replies(new ThirteenBytes(), new ReentrantLock(), admission.buffers(), share.sending());
    Replies.Source slow =
        to -> {
          to.begin();
          ByteBuffer piece = to.piece().clear().limit(100);
          tick(100);
          to.write(piece);
          return true;
        };
    assertThat(replies.sendFrom(slow, 100, ByteBuffer.allocate(16), true)).isTrue();
    assertThat(cut).isFalse();
    reservation.release();
    waiting.join();
  }

  @Test
  void aClientThatTakesNoDataInTheMiddleOfAReplyIsCutWhileOthersWait() throws Exception {
    Reservation reservation = share.tryAdmit(BOUND + OWN).orElseThrow();
    Thread waiting = waiting(other, MIB);
    WritableByteChannel slow =
        new WritableByteChannel() {
          @Override
          public int write(ByteBuffer from) {
            tick(from.remaining() == 100 ? 100 : 0);
            int count = from.remaining();
            from.position(from.limit());
            return count;
          }

          @Override
          public boolean isOpen() {
            return true;
          }

          @Override
          public void close() {}
        };
    Replies replies = new Replies(slow, new ReentrantLock(), admission.buffers(), share.sending());
    Replies.Source source =
        to -> {
          to.begin();
          to.write(to.piece().clear().limit(100));
          return true;
        };
    assertThat(replies.sendFrom(source, 100, ByteBuffer.allocate(16), true)).isTrue();
    assertThat(cut).isTrue();
    reservation.release();
    waiting.join();
  }

  /** Its client may send a write, for which it waits, before it takes replies again. */
  @Test
  void whoWaitsForMemoryItselfIsNotCut() throws Exception {
    Reservation read = share.tryAdmitReply(16 * MIB).orElseThrow();
    share.sending().begin();
    Reservation write = other.tryAdmit(17 * MIB).orElseThrow();
    Thread waiting = waiting(share, 8 * MIB);
    tick(100);
    assertThat(cut).isFalse();
    write.release();
    waiting.join();
    read.release();
  }
}
