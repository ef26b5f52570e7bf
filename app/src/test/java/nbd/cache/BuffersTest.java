package nbd.cache;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.ByteBuffer;
import org.junit.jupiter.api.Test;

/** What the cache does for memory in which to bring and to store data. */
class BuffersTest {
  @Test
  void whereDirectMemoryIsUsedUpTheHeapServes() {
    Buffers buffers =
        new Buffers(
            size -> {
              throw new OutOfMemoryError("Cannot reserve so much of direct buffer memory");
            });
    ByteBuffer buffer = buffers.take(5000);
    assertThat(buffer.remaining()).isEqualTo(5000);
    buffers.giveBack(buffer);
    assertThat(buffers.take(6000).remaining()).isEqualTo(6000);
  }
}
