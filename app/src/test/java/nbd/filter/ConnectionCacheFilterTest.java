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
import nbd.storage.Backend;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.storage.Operation;
import org.junit.jupiter.api.Test;

/** Connections with a cache each, which see only their own writes until they flush. */
class ConnectionCacheFilterTest {
  private final Backend memory = new MemoryBackend(10_000);

  private Handle open(long capacity) throws IOException {
    return new ConnectionCacheFilter(memory, capacity).open("", false);
  }

  private Handle open() throws IOException {
    return open(ConnectionCacheFilter.DEFAULT_CAPACITY);
  }

  @Test
  void aWriteIsSeenByItselfAtOnceAndByOthersAfterItsFlush() throws IOException {
    Handle one = open();
    Handle other = open();
    write(one, 0, "new");
    assertThat(read(one, 0, 4)).isEqualTo("new.");
    assertThat(read(other, 0, 4)).isEqualTo("....");

    one.flush();

    assertThat(read(other, 0, 4)).as("it has read before").isEqualTo("....");
    other.flush();
    assertThat(read(other, 0, 4)).isEqualTo("new.");
  }

  @Test
  void writesToPartsOfABlockDoNotUndoEachOther() throws IOException {
    Handle one = open();
    Handle other = open();
    read(one, 0, 8);
    write(one, 0, "one");
    write(other, 4, "two");
    other.flush();
    one.flush();
    assertThat(read(other, 0, 8)).isEqualTo("one.two.");
  }

  @Test
  void readsAndWritesReachOverBlocksAndToTheEnd() throws IOException {
    Handle handle = open();
    write(handle, 4094, "over");
    write(handle, 9996, "last");
    assertThat(read(handle, 4092, 8)).isEqualTo("..over..");
    assertThat(read(handle, 9994, 6)).isEqualTo("..last");
    handle.flush();
    assertThat(read(handle, 4092, 8)).isEqualTo("..over..");
    assertThat(read(handle, 9994, 6)).isEqualTo("..last");
  }

  @Test
  void zeroIsCachedAndTrimForgets() throws IOException {
    Handle one = open();
    Handle other = open();
    write(one, 0, "abcdef");
    one.flush();
    one.zero(1, 2, CommandFlags.NONE);
    assertThat(read(one, 0, 6)).isEqualTo("a..def");
    assertThat(read(other, 0, 6)).isEqualTo("abcdef");
    one.trim(0, 0, CommandFlags.NONE);
    one.trim(0, 6, CommandFlags.NONE);
    one.flush();
    other.flush();
    assertThat(read(other, 0, 6)).as("as the memory does it").isEqualTo("......");
  }

  @Test
  void aLargeZeroPassesThroughAndTakesEffect() throws IOException {
    Backend large = new MemoryBackend(4 << 20);
    Handle handle = new ConnectionCacheFilter(large, 1 << 20).open("", false);
    write(handle, 2 << 20, "data");
    handle.zero(0, 4 << 20, CommandFlags.NONE);
    assertThat(read(handle, 2 << 20, 4)).isEqualTo("....");
    handle.flush();
    assertThat(read(handle, 2 << 20, 4)).isEqualTo("....");
  }

  @Test
  void itsSizeIsBounded() throws IOException {
    Handle one = open(8192);
    Handle other = open();
    write(one, 0, "a");
    write(one, 4096, "b");
    assertThat(read(other, 8192, 1)).isEqualTo(".");
    write(one, 8192, "c");

    assertThat(read(other, 0, 1)).as("written back to make room").isEqualTo("a");
    assertThat(read(one, 0, 1) + read(one, 4096, 1) + read(one, 8192, 1)).isEqualTo("abc");
  }

  @Test
  void closingKeepsWhatWasWritten() throws IOException {
    Handle one = open();
    write(one, 0, "kept");
    one.close();
    assertThat(read(open(), 0, 4)).isEqualTo("kept");
  }

  @Test
  void itHidesMultiConnAndLeavesFuaToFlush() throws IOException {
    Handle handle = open();
    assertThat(handle.capabilities().has(Capability.MULTI_CONN)).isFalse();
    assertThat(handle.capabilities().has(Capability.FLUSH)).isTrue();
    assertThat(handle.capabilities().has(Capability.FUA)).isFalse();
  }

  @Test
  void theFastPathIsNotTaken() throws IOException {
    Handle handle = open();
    assertThat(handle.tryNow(Operation.read(ByteBuffer.allocate(1), 0))).isFalse();
    assertThat(handle.tryNow(Operation.write(ByteBuffer.allocate(1), 0, CommandFlags.NONE)))
        .isFalse();
  }

  @Test
  void aFailedFlushKeepsWhatIsNotWrittenBack() throws IOException {
    Backend failing =
        new ErrorFilter(
            memory, ErrorRate.NONE, new ErrorRate(0.5, NbdError.EIO), ErrorRate.NONE, 1);
    Handle handle = new ConnectionCacheFilter(failing, 1 << 20).open("", false);
    write(handle, 0, "kept");
    boolean failed = false;
    boolean done = false;
    for (int i = 0; i < 100 && !done; i++) {
      try {
        handle.flush();
        done = true;
      } catch (IOException e) {
        failed = true;
        assertThat(read(handle, 0, 4)).isEqualTo("kept");
        write(handle, 0, "kept");
      }
      if (done && !failed) {
        // The draw let it pass: try again.
        write(handle, 0, "kept");
        done = false;
      }
    }
    assertThat(failed).isTrue();
    assertThat(read(open(), 0, 4)).isEqualTo("kept");
  }

  @Test
  void errorRatesOutOfBoundsAreRefused() {
    assertThatThrownBy(() -> new ErrorRate(1.1, NbdError.EIO)).hasMessageContaining("1.1");
    assertThatThrownBy(() -> new ErrorRate(Double.NaN, NbdError.EIO)).hasMessageContaining("NaN");
  }
}
