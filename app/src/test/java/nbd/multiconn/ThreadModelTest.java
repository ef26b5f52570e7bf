package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.filter.SerializeFilter;
import nbd.protocol.Command;
import nbd.storage.ThreadModel;
import nbd.testing.Gate;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** Flushes on another connection's handle, which keep to that handle's thread model. */
class ThreadModelTest {
  private static Scene scene(ThreadModel model, int connections) throws IOException {
    return Scene.over(storage -> new SerializeFilter(storage, model), connections);
  }

  @Test
  void aFlushDoesNotEnterAHandleBesideARequest() throws IOException {
    Scene scene = scene(ThreadModel.SERIALIZE_REQUESTS, 2);
    scene.write(0);
    Gate inWrite = scene.stop(0, Command.WRITE);
    Running write = scene.startWrite(0);
    inWrite.awaitReached();
    Running flush = scene.startFlush(1);
    flush.awaitParked();
    assertThat(scene.takeFlushed()).isEmpty();
    scene.read(1);

    inWrite.open();
    write.join();
    flush.join();

    assertThat(scene.takeFlushed())
        .as("then the one that has read meanwhile")
        .containsExactly(0, 1);
  }

  @Test
  void whereAllRequestsAreSerializedFlushesAreToo() throws IOException {
    Scene scene = scene(ThreadModel.SERIALIZE_ALL_REQUESTS, 4);
    AtomicInteger inside = new AtomicInteger();
    AtomicInteger most = new AtomicInteger();
    scene.fake.hook(
        call -> {
          most.accumulateAndGet(inside.incrementAndGet(), Math::max);
          Thread.onSpinWait();
          inside.decrementAndGet();
        });
    Running[] running = new Running[4];
    for (int i = 0; i < running.length; i++) {
      int number = i;
      running[i] =
          Running.start(
              () -> {
                for (int n = 0; n < 500; n++) {
                  scene.write(number);
                  scene.read(number);
                  scene.flush(number);
                }
              });
    }
    for (Running one : running) {
      one.join();
    }

    assertThat(most).hasValue(1);
  }

  @Test
  void aFlushWaitsForAReadInFlightWithoutKeepingItFromEnding() throws IOException {
    Scene scene = scene(ThreadModel.SERIALIZE_ALL_REQUESTS, 2);
    scene.write(1);
    Gate inRead = scene.stop(0, Command.READ);
    Running read = scene.startRead(0);
    inRead.awaitReached();
    Running flush = scene.startFlush(1);
    flush.awaitParked();

    inRead.open();
    read.join();
    flush.join();

    assertThat(scene.takeFlushed()).containsExactly(1, 0);
  }
}
