package nbd.storage;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Buffers that are lent to one user at a time, while the JVM has memory. */
@Timeout(300)
final class BufferPoolTest {
  private static final long MIB = 1 << 20;

  @Test
  void aBufferHasTheLengthThatWasAskedFor() throws NbdException {
    BufferPool pool = new BufferPool(1L << 30);
    for (int length : new int[] {0, 1, 4095, 4096, 4097, 65_536, (32 << 20) + 16, 1 << 26}) {
      ByteBuffer buffer = pool.take(length);
      assertThat(buffer.remaining()).isEqualTo(length);
      assertThat(buffer.position()).isZero();
      assertThat(buffer.isDirect()).isTrue();
      assertThat(buffer.order()).isEqualTo(ByteOrder.BIG_ENDIAN);
      pool.giveBack(buffer.position(length / 2));
    }
    assertThatThrownBy(() -> pool.take((1 << 26) + 1)).isInstanceOf(IllegalArgumentException.class);
    assertThatThrownBy(() -> pool.take(-1)).isInstanceOf(IllegalArgumentException.class);
  }

  @Test
  @SuppressWarnings("ReferenceEquality") // that it is the same one is what is tested
  void aBufferThatWasGivenBackIsLentAgainWhole() throws NbdException {
    BufferPool pool = new BufferPool(1L << 30);
    ByteBuffer buffer = pool.take(5000);
    pool.giveBack(buffer.position(100).limit(200));
    ByteBuffer again = pool.take(8000);
    assertThat(again == buffer).isTrue();
    assertThat(again.position()).isZero();
    assertThat(again.limit()).isEqualTo(8000);
  }

  @Test
  void onlyWhatNobodyNeedsIsDropped() throws NbdException {
    BufferPool pool = new BufferPool(1L << 30);
    List<ByteBuffer> lent = new ArrayList<>();
    for (int i = 0; i < 32; i++) {
      lent.add(pool.take(1 << 20));
    }
    lent.forEach(pool::giveBack);
    assertThat(pool.dropUnneeded()).as("all were needed").isZero();
    for (int i = 0; i < 10; i++) {
      lent.set(i, pool.take(1 << 20));
    }
    lent.subList(0, 10).forEach(pool::giveBack);
    assertThat(pool.dropUnneeded()).as("22 were not, 4 are spare").isEqualTo(18 * MIB);
    assertThat(pool.dropUnneeded()).isEqualTo(10 * MIB);
    assertThat(pool.dropUnneeded()).isZero();
  }

  @Test
  void aBufferIsNeverLentTwice() throws Exception {
    BufferPool pool = new BufferPool(1L << 30);
    List<Thread> threads = new ArrayList<>();
    AtomicLong torn = new AtomicLong();
    for (int i = 0; i < 8; i++) {
      long mark = i;
      threads.add(
          Thread.ofPlatform()
              .start(
                  () -> {
                    for (int n = 0; n < 20_000; n++) {
                      ByteBuffer buffer = take(pool);
                      buffer.putLong(0, mark);
                      if (n % 64 == 0) {
                        Thread.onSpinWait();
                      }
                      if (buffer.getLong(0) != mark) {
                        torn.incrementAndGet();
                      }
                      pool.giveBack(buffer);
                    }
                  }));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(torn.get()).isZero();
  }

  private static ByteBuffer take(BufferPool pool) {
    try {
      return pool.take(8);
    } catch (NbdException none) {
      throw new AssertionError(none);
    }
  }

  @Test
  void whatIsReservedIsForConnectionsOnly() throws NbdException {
    AtomicLong used = new AtomicLong(100 * MIB);
    BufferPool pool = new BufferPool(1L << 30, new DirectMemory(100 * MIB, used::get));
    assertThatThrownBy(() -> pool.take(5000))
        .isInstanceOfSatisfying(
            NbdException.class, none -> assertThat(none.error()).isEqualTo(NbdError.ENOMEM));
    ByteBuffer reserved = pool.takeReserved(5000);
    pool.giveBack(reserved);
    assertThat(pool.take(8000)).as("memory that is there already").isSameAs(reserved);
    used.set(0);
    assertThat(pool.take(5000).remaining()).isEqualTo(5000);
  }

  @Test
  void nothingIsCollectedForABufferThatWillNeverFit() {
    AtomicInteger asked = new AtomicInteger();
    DirectMemory memory = new DirectMemory(MIB, asked::incrementAndGet);
    assertThatThrownBy(() -> memory.allocate((int) MIB)).isInstanceOf(NbdException.class);
    assertThat(asked).as("questions for the memory in use").hasValue(1);
  }
}
