package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.ByteBuffer;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.protocol.NbdException;
import nbd.storage.BufferPool;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** The moments at which memory goes back to the system. The test counts collections and trims. */
final class UnusedMemoryTest {
  private final AtomicInteger collected = new AtomicInteger();
  private final AtomicInteger trimmed = new AtomicInteger();
  private final BufferPool buffers = new BufferPool(64 << 20);
  private final UnusedMemory memory =
      new UnusedMemory(buffers, collected::incrementAndGet, trimmed::incrementAndGet);

  @BeforeEach
  void start() {
    memory.look(0);
    assertThat(collected.getAndSet(0)).as("after the start").isEqualTo(1);
  }

  @Test
  void freedMemoryIsTrimmedOnceAfterTheCollection() {
    assertThat(trimmed).hasValue(0);
    memory.look(0);
    memory.look(0);
    assertThat(trimmed).hasValue(1);
  }

  @Test
  void aFewConnectionsAreNotWorthACollection() {
    memory.look(999);
    memory.look(999);
    assertThat(collected).hasValue(0);
  }

  @Test
  void aBurstIsOverWhenNoMoreConnectionsEnd() {
    memory.look(800);
    memory.look(1600);
    assertThat(collected).as("connections still end").hasValue(0);
    memory.look(1600);
    memory.look(1600);
    assertThat(collected).as("once for each burst").hasValue(1);
    memory.look(2600);
    memory.look(2600);
    assertThat(collected).hasValue(2);
  }

  @Test
  void buffersThatNobodyNeedsAreWorthACollection() throws NbdException {
    ByteBuffer one = buffers.take(16 << 20);
    ByteBuffer other = buffers.take(16 << 20);
    memory.look(0);
    buffers.giveBack(one);
    buffers.giveBack(other);
    memory.look(0);
    assertThat(collected).as("needed a moment ago").hasValue(0);
    memory.look(0);
    assertThat(collected).hasValue(1);
  }
}
