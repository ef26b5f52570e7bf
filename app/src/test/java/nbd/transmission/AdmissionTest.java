package nbd.transmission;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
import nbd.testing.Eventually;
import nbd.testing.ThirteenBytes;
import nbd.transmission.Admission.Reservation;
import nbd.transmission.Admission.Share;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * Requests are admitted while there is memory, and clients that hold others up are disconnected.
 */
@Timeout(300)
final class AdmissionTest {
  private static final long MIB = 1 << 20;
  private static final long BOUND = Admission.MINIMUM_BYTES;
  private static final int OWN = Admission.OWN_BYTES;
  private static final long TICK = Duration.ofMillis(250).toNanos();

  private final Admission admission = new Admission(BOUND, Duration.ofSeconds(2));
  private final AtomicBoolean disconnected = new AtomicBoolean();
  private final Share share = admission.open(() -> disconnected.set(true));
  private final Share other = admission.open(() -> {});
  private final List<Reservation> held = new ArrayList<>();
  private final List<Thread> threads = new ArrayList<>();

  /** Gives the memory back, and checks that then no thread waits for ever. */
  @AfterEach
  void releaseAll() throws InterruptedException {
    held.forEach(Reservation::release);
    for (Thread thread : threads) {
      thread.join();
    }
  }

  private Reservation hold(Share share, long bytes) {
    Reservation reservation = share.tryAdmit(bytes).orElseThrow();
    held.add(reservation);
    return reservation;
  }

  private static boolean isParked(Thread thread) {
    return thread.getState() == Thread.State.WAITING;
  }

  /** Starts a thread that waits for so many bytes and gives them back. */
  private Thread await(Share share, long bytes) throws InterruptedException {
    Thread thread = Thread.ofVirtual().start(() -> share.admit(bytes).release());
    threads.add(thread);
    Eventually.isTrue("it waits", () -> isParked(thread));
    return thread;
  }

  private void tick(int times) {
    for (int i = 0; i < times; i++) {
      admission.disconnectStalled(TICK);
    }
  }

  @Test
  void aConnectionHasSoManyRequests() {
    for (int i = 0; i < Admission.MAXIMUM_REQUESTS; i++) {
      hold(share, 0);
    }
    assertThat(share.tryAdmit(0)).isEmpty();
    held.getFirst().release();
    held.getFirst().release();
    assertThat(share.tryAdmit(0)).isPresent();
    assertThat(share.tryAdmit(0)).as("a reservation that was released twice").isEmpty();
  }

  @Test
  void aConnectionHoldsSoManyBytesOrOneRequest() {
    Share one = new Admission(1L << 30, Duration.ofSeconds(2)).open(() -> {});
    Reservation alone = hold(one, Admission.MAXIMUM_BYTES + 1);
    assertThat(one.tryAdmit(0)).isEmpty();
    alone.release();
    hold(one, Admission.MAXIMUM_BYTES);
    hold(one, 0);
    assertThat(one.tryAdmit(1)).isEmpty();
  }

  @Test
  void whoWaitsForItsOwnRequestsIsAdmittedWhenOneLeaves() throws Exception {
    Admission large = new Admission(1L << 30, Duration.ofSeconds(2));
    Share one = large.open(() -> {});
    Reservation first = hold(one, Admission.MAXIMUM_BYTES);
    Thread waiting = await(one, MIB);
    Thread last = Thread.ofVirtual().start(one::awaitNone);
    Eventually.isTrue("it waits", () -> isParked(last));
    first.release();
    waiting.join();
    last.join();
    assertThat(large.held()).isZero();
  }

  @Test
  void nobodyElseCanTakeAConnectionsOwnMemory() {
    hold(other, BOUND + OWN);
    assertThat(other.tryAdmit(1)).isEmpty();
    hold(share, OWN);
    assertThat(share.tryAdmit(1)).isEmpty();
  }

  @Test
  void aReadGetsNoMemoryWhenHalfIsUsedAndNeverWaits() {
    Reservation half = hold(other, BOUND / 2 + OWN);
    assertThat(share.tryAdmitReply(OWN + 1)).isEmpty();
    assertThat(share.tryAdmitReply(OWN)).as("its own").isPresent();
    half.release();
    assertThat(share.tryAdmitReply(MIB)).isPresent();
  }

  @Test
  void nobodyTakesMemoryForWhichOthersWait() throws Exception {
    hold(other, 20 * MIB);
    await(share, 32 * MIB);
    Share third = admission.open(() -> {});
    assertThat(third.tryAdmit(OWN + 1)).as("overtakes").isEmpty();
    assertThat(third.tryAdmitReply(OWN + 1)).as("overtakes").isEmpty();
    assertThat(third.tryAdmit(OWN)).as("its own").isPresent();
  }

  /** Others announce 32 MiB each, and keep it when they get it, until they are disconnected. */
  @Test
  void whoWantsLittleDoesNotWaitForAllWhoWantedMuchBefore() throws Exception {
    Admission admission = new Admission(40 * MIB, Duration.ofSeconds(2));
    Share modest = admission.open(() -> {});
    AtomicLong admitted = new AtomicLong();
    Semaphore ends = new Semaphore(0);
    for (int i = 0; i < 10; i++) {
      Share mine = admission.open(() -> {});
      Runnable greedy =
          () -> {
            Reservation reservation = mine.admit(32 * MIB);
            admitted.incrementAndGet();
            ends.acquireUninterruptibly();
            reservation.release();
          };
      threads.add(Thread.ofVirtual().start(greedy));
    }
    for (int i = 1; i <= threads.size(); i++) {
      long next = i;
      Eventually.isTrue("the next one has got it", () -> admitted.get() == next);
      for (int n = 0; n < 20; n++) {
        // It would wait for ever behind any of the others.
        modest.admit(MIB).release();
      }
      ends.release();
    }
  }

  /** Others that always want little go first only until they had as much. */
  @Test
  void whoWantsMuchWaitsForABoundedNumberOfBytes() throws Exception {
    Reservation last = hold(other, BOUND + OWN);
    Thread much = await(share, 32 * MIB);
    // Only bytes beyond a client's own count, and one client may have been admitted before.
    long limit = Admission.OVERTAKING * 32 * MIB / (4 * MIB - OWN) + 1;
    long rounds = 0;
    while (much.isAlive() && rounds <= limit) {
      Share mine = admission.open(() -> {});
      List<Reservation> next = new ArrayList<>();
      Thread little = Thread.ofVirtual().start(() -> next.add(mine.admit(4 * MIB)));
      Eventually.isTrue("it waits", () -> isParked(little) || !little.isAlive());
      last.release();
      little.join();
      last = next.getFirst();
      rounds++;
    }
    held.add(last);
    assertThat(rounds).isBetween(2L, limit);
  }

  /** The memory that it needs beyond its own shrinks when its own requests leave. */
  @Test
  void whoWaitsIsAdmittedWhenItsOwnMemoryIsFree() throws Exception {
    hold(other, BOUND + OWN);
    Reservation own = hold(share, OWN);
    Thread thread = await(share, OWN);
    own.release();
    thread.join();
  }

  /** The first in the queue may wait for storage that hangs. */
  @Test
  void whoseOwnMemorySufficesDoesNotWaitBehindThoseWhoNeedMore() throws Exception {
    hold(other, BOUND + OWN);
    Share greedy = admission.open(() -> {});
    hold(greedy, OWN);
    await(greedy, OWN);
    Reservation own = hold(share, OWN);
    Thread thread = await(share, OWN);
    own.release();
    thread.join();
  }

  /** A READ's reply is a little longer than its data, and its buffer a power of two. */
  @Test
  void aReadOrTwoWritesOfTheUsualLengthFitInAConnectionsOwnMemory() {
    int usual = 256 << 10;
    hold(share, Admission.bytesFor(usual));
    hold(share, Admission.bytesFor(usual));
    held.forEach(Reservation::release);
    hold(other, BOUND + OWN);
    assertThat(share.tryAdmitReply(Admission.bytesFor(32 + usual))).isPresent();
  }

  @Test
  void threadsNeverHoldMoreThanTheBound() throws Exception {
    int count = 8;
    AtomicLong bytesHeld = new AtomicLong();
    AtomicLong most = new AtomicLong();
    for (int i = 0; i < count; i++) {
      Random random = new Random(i);
      Share mine = admission.open(() -> {});
      Runnable requests =
          () -> {
            for (int n = 0; n < 2000; n++) {
              long bytes = random.nextLong(32 * MIB);
              Reservation reservation =
                  (n % 3 == 0 ? mine.tryAdmitReply(bytes) : mine.tryAdmit(bytes))
                      .orElseGet(() -> mine.admit(bytes));
              most.accumulateAndGet(bytesHeld.addAndGet(bytes), Math::max);
              bytesHeld.addAndGet(-bytes);
              if (n % 5 == 0) {
                Thread.ofVirtual().start(reservation::release);
              } else {
                reservation.release();
              }
            }
          };
      threads.add(Thread.ofVirtual().start(requests));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    Eventually.isTrue("all came back", () -> admission.held() == 0);
    assertThat(most.get()).isLessThanOrEqualTo(BOUND + (long) count * OWN);
    assertThat(share.tryAdmit(BOUND + OWN)).as("all of it").isPresent();
  }

  @Test
  void aSenderThatStallsIsDisconnectedWhileOthersWait() throws Exception {
    hold(share, BOUND + OWN);
    await(other, MIB);
    share.receiving().begin();
    tick(8);
    assertThat(disconnected).as("within its patience").isFalse();
    tick(1);
    assertThat(disconnected).isTrue();
  }

  @Test
  void aSenderThatHasStalledForLongIsDisconnectedAsSoonAsOthersWaitAndNotBefore() throws Exception {
    hold(share, BOUND + OWN);
    share.receiving().begin();
    tick(100);
    assertThat(disconnected).as("while nobody waits").isFalse();
    await(other, MIB);
    tick(1);
    assertThat(disconnected).isTrue();
  }

  @Test
  void aSenderThatGoesOnAfterALongStallHasSoonCaughtUp() throws Exception {
    hold(share, BOUND + OWN);
    share.receiving().begin();
    tick(100);
    share.receiving().moved(BOUND / 8);
    tick(1);
    await(other, MIB);
    tick(2);
    assertThat(disconnected).isFalse();
  }

  /** 64 KiB each 1.5 s: it would take the longest write 13 minutes. */
  @Test
  void aSenderThatDribblesIsDisconnectedWhileOthersWait() throws Exception {
    hold(share, BOUND + OWN);
    share.receiving().begin();
    await(other, MIB);
    for (int i = 0; i < 4 && !disconnected.get(); i++) {
      share.receiving().moved(64 << 10);
      tick(6);
    }
    assertThat(disconnected).isTrue();
  }

  @Test
  void aSenderThatMovesAllThatItHoldsInTimeMayGoOn() throws Exception {
    long bytes = BOUND + OWN;
    hold(share, bytes);
    share.receiving().begin();
    await(other, MIB);
    for (int i = 0; i < 400; i++) {
      share.receiving().moved(bytes / 40 + 1);
      tick(1);
    }
    assertThat(disconnected).isFalse();
  }

  @Test
  void aClientThatTakesNoRepliesIsDisconnectedWhileOthersWaitForItsMemory() throws Exception {
    held.add(share.tryAdmitReply(BOUND / 2).orElseThrow());
    hold(other, 17 * MIB);
    share.sending().begin();
    tick(100);
    assertThat(disconnected).as("while nobody waits").isFalse();
    await(other, 5 * MIB);
    tick(1);
    assertThat(disconnected).isTrue();
  }

  @Test
  void whoHoldsNothingButItsOwnMemoryMayBeSlow() throws Exception {
    hold(share, OWN);
    share.sending().begin();
    hold(other, BOUND + OWN);
    await(admission.open(() -> {}), MIB);
    tick(100);
    assertThat(disconnected).isFalse();
  }

  @Test
  void whoWaitsForStorageMayBeSlow() throws Exception {
    hold(share, BOUND + OWN);
    share.receiving().begin();
    share.receiving().end();
    await(other, MIB);
    tick(100);
    assertThat(disconnected).isFalse();
  }

  /** The client may first send a write, which waits for memory, and take replies only then. */
  @Test
  void whoWaitsForMemoryItselfMayBeSlow() throws Exception {
    held.add(share.tryAdmitReply(16 * MIB).orElseThrow());
    share.sending().begin();
    hold(other, 17 * MIB);
    await(share, 8 * MIB);
    tick(100);
    assertThat(disconnected).isFalse();
  }

  /** Data is copied where it cannot be sent straight from the storage. */
  @Test
  void inTheMiddleOfAReplyTheStorageMayBeSlowAndTheClientNot() throws Exception {
    hold(share, BOUND + OWN);
    await(other, MIB);
    AtomicInteger ticksOfClient = new AtomicInteger();
    ThirteenBytes client =
        new ThirteenBytes(
            left -> {
              tick(ticksOfClient.get());
              return left;
            });
    Replies replies =
        new Replies(client, new ReentrantLock(), admission.buffers(), share.sending());
    for (int ticks : new int[] {0, 100}) {
      Replies.Source source =
          to -> {
            to.begin();
            tick(100 - ticks);
            ticksOfClient.set(ticks);
            to.write(to.piece().clear().limit(100));
            return true;
          };
      assertThat(replies.sendFrom(source, 100, ByteBuffer.allocate(16), true)).isTrue();
      assertThat(disconnected.get()).isEqualTo(ticks > 0);
    }
  }
}
