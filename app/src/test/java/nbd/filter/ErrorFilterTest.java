package nbd.filter;

import static nbd.filter.FilterTestSupport.read;
import static nbd.filter.FilterTestSupport.write;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.memory.MemoryBackend;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Handle;
import nbd.storage.Operation;
import org.junit.jupiter.api.Test;

/** Storage that fails as often as the options say, and in the same places again. */
class ErrorFilterTest {
  private static Handle open(ErrorRate read, ErrorRate write, ErrorRate flush, long seed)
      throws IOException {
    return new ErrorFilter(new MemoryBackend(4096), read, write, flush, seed).open("", false);
  }

  @Test
  void aCallFailsWithTheErrorThatWasAskedForAndDoesNothing() throws IOException {
    ErrorRate full = new ErrorRate(1, NbdError.ENOSPC);
    Handle handle = open(ErrorRate.NONE, full, full, 1);
    assertThatThrownBy(() -> write(handle, 0, "x"))
        .isInstanceOfSatisfying(
            NbdException.class, e -> assertThat(e.error()).isEqualTo(NbdError.ENOSPC));
    assertThatThrownBy(() -> handle.trim(0, 1, CommandFlags.NONE)).hasMessageContaining("write");
    assertThatThrownBy(() -> handle.zero(0, 1, CommandFlags.NONE)).hasMessageContaining("write");
    assertThatThrownBy(handle::flush).hasMessageContaining("flush");
    assertThat(handle.tryNow(Operation.write(ByteBuffer.allocate(1), 0, CommandFlags.NONE)))
        .isFalse();
    assertThat(read(handle, 0, 1)).isEqualTo(".");
    assertThat(handle.tryNow(Operation.read(ByteBuffer.allocate(1), 0))).isTrue();
  }

  @Test
  void theSameSeedFailsTheSameCalls() throws IOException {
    String first = failures(4711);
    assertThat(failures(4711)).isEqualTo(first);
    assertThat(failures(4712)).isNotEqualTo(first);
    long failed = first.chars().filter(c -> c == 'x').count();
    assertThat(failed).isBetween(50L, 150L);
  }

  private static String failures(long seed) throws IOException {
    Handle handle = open(new ErrorRate(0.1, NbdError.EIO), ErrorRate.NONE, ErrorRate.NONE, seed);
    StringBuilder failures = new StringBuilder();
    for (int i = 0; i < 1000; i++) {
      try {
        read(handle, 0, 1);
        failures.append('.');
      } catch (NbdException e) {
        failures.append('x');
      }
    }
    return failures.toString();
  }
}
