package nbd.filter;

import static nbd.filter.FilterTestSupport.read;
import static nbd.filter.FilterTestSupport.write;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import nbd.memory.MemoryBackend;
import nbd.protocol.CommandFlags;
import nbd.storage.Handle;
import nbd.storage.Operation;
import org.junit.jupiter.api.Test;

/** Storage that is slow where the options say so. */
class DelayFilterTest {
  private static final Duration SOME = Duration.ofMillis(20);

  private static Handle open(Duration read, Duration write, Duration flush) throws IOException {
    return new DelayFilter(new MemoryBackend(4096), read, write, flush).open("", false);
  }

  @Test
  void eachKindOfCallTakesItsTime() throws IOException {
    Handle handle = open(SOME, Duration.ZERO, SOME);
    long start = System.nanoTime();
    handle.flush();
    assertThat(read(handle, 0, 1)).isEqualTo(".");
    assertThat(System.nanoTime() - start).isGreaterThanOrEqualTo(SOME.multipliedBy(2).toNanos());
  }

  @Test
  void whatIsDelayedIsNotDoneNow() throws IOException {
    Handle slowReads = open(SOME, Duration.ZERO, Duration.ZERO);
    assertThat(slowReads.tryNow(Operation.read(ByteBuffer.allocate(1), 0))).isFalse();
    assertThat(slowReads.tryNow(Operation.write(ByteBuffer.allocate(1), 0, CommandFlags.NONE)))
        .isTrue();
    Handle slowWrites = open(Duration.ZERO, SOME, Duration.ZERO);
    assertThat(slowWrites.tryNow(Operation.read(ByteBuffer.allocate(1), 0))).isTrue();
    assertThat(slowWrites.tryNow(Operation.write(ByteBuffer.allocate(1), 0, CommandFlags.NONE)))
        .isFalse();
    write(slowWrites, 0, "x");
    assertThat(read(slowWrites, 0, 1)).isEqualTo("x");
  }
}
