package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.ByteBuffer;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.protocol.NbdException;
import nbd.storage.BufferPool;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** The moments at which memory goes back to the system. */
final class UnusedMemoryTest {
  private final AtomicInteger released = new AtomicInteger();
  private final BufferPool buffers = new BufferPool(64 << 20);
  private final UnusedMemory memory = new UnusedMemory(buffers, released::incrementAndGet);

  @BeforeEach
  void start() {
    memory.look(0);
    assertThat(released.getAndSet(0)).as("after the start").isEqualTo(1);
  }

  @Test
  void aFewConnectionsAreNotWorthACollection() {
    memory.look(999);
    memory.look(999);
    assertThat(released).hasValue(0);
  }

  @Test
  void aBurstIsOverWhenNoMoreConnectionsEnd() {
    memory.look(800);
    memory.look(1600);
    assertThat(released).as("connections still end").hasValue(0);
    memory.look(1600);
    memory.look(1600);
    assertThat(released).as("once for each burst").hasValue(1);
    memory.look(2600);
    memory.look(2600);
    assertThat(released).hasValue(2);
  }

  @Test
  void buffersThatNobodyNeedsAreWorthACollection() throws NbdException {
    ByteBuffer one = buffers.take(16 << 20);
    ByteBuffer other = buffers.take(16 << 20);
    memory.look(0);
    buffers.giveBack(one);
    buffers.giveBack(other);
    memory.look(0);
    assertThat(released).as("needed a moment ago").hasValue(0);
    memory.look(0);
    assertThat(released).hasValue(1);
  }
}
