package nbd.filter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import nbd.memory.MemoryBackend;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.ThreadModel;
import org.junit.jupiter.api.Test;

/**
 * The operations that each thread model keeps apart; ThreadModelTest has requests beside flushes.
 */
class SerializeFilterTest {
  private final MemoryBackend memory = new MemoryBackend(4096);

  @Test
  void theStricterModelHolds() {
    assertThat(new SerializeFilter(memory, ThreadModel.SERIALIZE_REQUESTS).threadModel())
        .isEqualTo(ThreadModel.SERIALIZE_REQUESTS);
    Backend strict = new SerializeFilter(memory, ThreadModel.SERIALIZE_CONNECTIONS);
    assertThat(new SerializeFilter(strict, ThreadModel.PARALLEL).threadModel())
        .isEqualTo(ThreadModel.SERIALIZE_CONNECTIONS);
  }

  @Test
  void aSecondConnectionWaitsUntilTheFirstIsClosed() throws Exception {
    Backend filter = new SerializeFilter(memory, ThreadModel.SERIALIZE_CONNECTIONS);
    Handle first = filter.open("", false);
    CountDownLatch opened = new CountDownLatch(1);
    AtomicReference<Handle> second = new AtomicReference<>();
    Thread waiting =
        Thread.ofVirtual()
            .start(
                () -> {
                  try {
                    second.set(filter.open("", false));
                    opened.countDown();
                  } catch (IOException e) {
                    throw new IllegalStateException(e);
                  }
                });
    while (waiting.getState() != Thread.State.WAITING) {
      Thread.onSpinWait();
    }
    assertThat(opened.getCount()).isOne();

    first.close();

    assertThat(opened.await(2, TimeUnit.MINUTES)).isTrue();
    second.get().close();
    filter.open("", false).close();
  }

  @Test
  void aConnectionThatCannotBeOpenedKeepsNobodyWaiting() throws IOException {
    FilterBackend refusing =
        new FilterBackend(memory) {
          private boolean opened;

          @Override
          public Handle open(String exportName, boolean readOnly) throws IOException {
            if (!opened) {
              opened = true;
              throw new IOException("not now");
            }
            return next.open(exportName, readOnly);
          }
        };
    Backend filter = new SerializeFilter(refusing, ThreadModel.SERIALIZE_CONNECTIONS);
    assertThatThrownBy(() -> filter.open("", false)).hasMessage("not now");
    filter.open("", false).close();
  }

  @Test
  void theFastPathIsTakenOnlyWhereNothingIsSerialized() throws IOException {
    for (ThreadModel model : ThreadModel.values()) {
      try (Handle handle = new SerializeFilter(memory, model).open("", false)) {
        assertThat(handle.tryNow(Operation.read(ByteBuffer.allocate(1), 0)))
            .isEqualTo(model == ThreadModel.PARALLEL);
        assertThat(handle.tryNow(Operation.write(ByteBuffer.allocate(1), 0, CommandFlags.NONE)))
            .isEqualTo(model == ThreadModel.PARALLEL);
        handle.cache(0, 1);
        FilterTestSupport.write(handle, 0, "x");
        assertThat(FilterTestSupport.read(handle, 0, 1)).isEqualTo("x");
        handle.flush();
      }
    }
  }
}
