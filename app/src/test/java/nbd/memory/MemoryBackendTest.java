package nbd.memory;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicLong;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capability;
import nbd.storage.DirectMemory;
import nbd.storage.Handle;
import nbd.testing.Bytes;
import nbd.testing.Model;
import nbd.testing.Running;
import org.junit.jupiter.api.RepeatedTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The RAM disk, and the null backend. */
@Timeout(300)
final class MemoryBackendTest {
  private static final int PAGE = MemoryBackend.PAGE;

  private static byte[] read(Handle handle, long offset, int length) throws IOException {
    ByteBuffer into = ByteBuffer.allocate(length);
    handle.read(into, offset);
    return into.array();
  }

  @RepeatedTest(5)
  void itBehavesAsAnArray() throws IOException {
    try (Handle handle = new MemoryBackend(10 * PAGE + 77).open("", false)) {
      new Model(Model.seed(), handle, PAGE, 4096).run(400);
    }
  }

  @Test
  void allConnectionsSeeTheSame() throws IOException {
    MemoryBackend backend = new MemoryBackend(PAGE);
    try (Handle one = backend.open("a", false);
        Handle other = backend.open("b", true)) {
      one.write(ByteBuffer.wrap(Bytes.random(1, 100)), 5, CommandFlags.NONE);
      assertThat(read(other, 5, 100)).isEqualTo(Bytes.random(1, 100));
      assertThat(one.capabilities().has(Capability.MULTI_CONN)).isTrue();
      assertThat(other.capabilities().has(Capability.WRITE)).isFalse();
    }
  }

  @Test
  void theLargestIsSparse() throws IOException {
    try (Handle handle = new MemoryBackend(MemoryBackend.MAXIMUM_SIZE).open("", false)) {
      long end = MemoryBackend.MAXIMUM_SIZE;
      byte[] data = Bytes.random(2, 10);
      handle.write(ByteBuffer.wrap(data), end - 10, CommandFlags.NONE);
      handle.write(ByteBuffer.wrap(data), 0, CommandFlags.NONE);
      assertThat(read(handle, end - 10, 10)).isEqualTo(data);
      handle.zero(1L << 40, 0xfffff000L, CommandFlags.NONE);
      handle.trim(end - 0xffffffffL, 0xffffffffL, CommandFlags.NONE);
      assertThat(read(handle, end - 10, 10)).containsOnly(0);
    }
  }

  @Test
  void sizesOutOfBoundsAreRefused() {
    assertThatThrownBy(() -> new MemoryBackend(-1)).isInstanceOf(IllegalArgumentException.class);
    assertThatThrownBy(() -> new MemoryBackend(MemoryBackend.MAXIMUM_SIZE + 1))
        .isInstanceOf(IllegalArgumentException.class);
    assertThat(new MemoryBackend(0).open("", false).size()).isZero();
  }

  /** Each client writes and zeroes stripes of its own, which share pages with others' stripes. */
  @Test
  void writersAndTrimmersSideBySideHarmOnlyTheirOwnRanges() throws IOException {
    int stripes = 8;
    int width = PAGE / 4;
    MemoryBackend backend = new MemoryBackend((long) stripes * width);
    List<Running> clients = new ArrayList<>();
    for (int i = 0; i < stripes; i++) {
      int start = i * width;
      Random random = new Random(i);
      clients.add(
          Running.start(
              () -> {
                try (Handle handle = backend.open("", false)) {
                  for (int n = 0; n < 100; n++) {
                    byte[] data = new byte[width];
                    random.nextBytes(data);
                    handle.write(ByteBuffer.wrap(data), start, CommandFlags.NONE);
                    assertThat(read(handle, start, width)).isEqualTo(data);
                    handle.zero(start, width, CommandFlags.NONE);
                    assertThat(read(handle, start, width)).containsOnly(0);
                  }
                }
              }));
    }
    for (Running client : clients) {
      client.join();
    }
  }

  /** Overlapping commands take effect in either order; no older and no foreign data comes back. */
  @Test
  void overlappingWritesAndZeroesLeaveOneOrTheOther() throws IOException {
    MemoryBackend backend = new MemoryBackend(2L * PAGE);
    try (Handle handle = backend.open("", false);
        Handle second = backend.open("", false)) {
      for (int i = 1; i < 100; i++) {
        byte[] data = new byte[2 * PAGE];
        java.util.Arrays.fill(data, (byte) i);
        Running zeroing = Running.start(() -> second.zero(0, 2L * PAGE, CommandFlags.NONE));
        handle.write(ByteBuffer.wrap(data), 0, CommandFlags.NONE);
        zeroing.join();
        for (byte found : read(handle, 0, 2 * PAGE)) {
          if (found != 0 && found != i) {
            assertThat(found).isIn((byte) 0, (byte) i);
          }
        }
      }
    }
  }

  @Test
  void zeroesWithoutAHoleReadAsZeroes() throws IOException {
    try (Handle handle = new MemoryBackend(4L * PAGE).open("", false)) {
      handle.write(ByteBuffer.wrap(Bytes.random(3, 100)), PAGE - 50, CommandFlags.NONE);
      handle.zero(10, 3L * PAGE, CommandFlags.of(CommandFlag.NO_HOLE));
      assertThat(read(handle, 0, 4 * PAGE)).containsOnly(0);
    }
  }

  @Test
  void theOneThatForgetsReadsZeroes() throws IOException {
    try (Handle handle = new NullBackend(Long.MAX_VALUE).open("", false)) {
      handle.write(ByteBuffer.wrap(Bytes.random(4, 100)), 0, CommandFlags.NONE);
      ByteBuffer into = ByteBuffer.wrap(Bytes.random(5, 200_000)).position(10).limit(199_990);
      handle.read(into, 0);
      assertThat(into.remaining()).isZero();
      assertThat(java.util.Arrays.copyOfRange(into.array(), 10, 199_990)).containsOnly(0);
      assertThat(into.array()[9]).isEqualTo(Bytes.random(5, 200_000)[9]);
      assertThat(into.array()[199_990]).isEqualTo(Bytes.random(5, 200_000)[199_990]);
      handle.trim(0, Long.MAX_VALUE, CommandFlags.NONE);
      handle.zero(0, Long.MAX_VALUE, CommandFlags.NONE);
      handle.cache(0, Long.MAX_VALUE);
      handle.flush();
    }
  }

  /** The reserve is for requests and new connections. */
  @Test
  void aFullDiskRefusesWritesAndKeepsTheReserve() throws IOException {
    AtomicLong used = new AtomicLong();
    DirectMemory memory = new DirectMemory(100L << 20, used::get);
    try (Handle handle = new MemoryBackend(4L * PAGE, memory).open("", false)) {
      handle.write(ByteBuffer.wrap(new byte[] {1}), 0, CommandFlags.NONE);
      used.set((100L << 20) - (12L << 20));
      assertThatThrownBy(() -> handle.write(ByteBuffer.allocate(1), PAGE, CommandFlags.NONE))
          .isInstanceOfSatisfying(
              NbdException.class, full -> assertThat(full.error()).isEqualTo(NbdError.ENOSPC))
          .hasMessageContaining("MaxDirectMemorySize");
      handle.write(ByteBuffer.wrap(new byte[] {2}), 1, CommandFlags.NONE);
      assertThat(read(handle, 0, 2)).containsExactly(1, 2);
    }
  }
}
