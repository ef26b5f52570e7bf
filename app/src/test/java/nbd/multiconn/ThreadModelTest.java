package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.filter.SerializeFilter;
import nbd.storage.Handle;
import nbd.storage.ThreadModel;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

/** A flush on another connection's handle keeps to that handle's thread model. */
class ThreadModelTest {
  private final FakeBackend fake = new FakeBackend(FakeBackend.WRITABLE);

  private MultiConnFilter filter(ThreadModel model) {
    return new MultiConnFilter(
        new SerializeFilter(fake, model),
        new MultiConnSettings(MultiConnMode.EMULATE, TrackDirty.CONNECTION, false, false));
  }

  @Test
  void aFlushDoesNotEnterAHandleBesideARequest() throws IOException {
    MultiConnFilter filter = filter(ThreadModel.SERIALIZE_REQUESTS);
    Handle writer = filter.open("", false);
    Handle other = filter.open("", false);
    Calls.write(writer);
    Gate inWrite = new Gate();
    fake.handles.get(0).onWrite = inWrite;
    Running write = Running.start(() -> Calls.write(writer));
    inWrite.awaitReached();
    Running flush = Running.start(other::flush);
    flush.awaitParked();
    assertThat(fake.flushed).isEmpty();
    Calls.read(other);

    inWrite.open();
    write.join();
    flush.join();

    assertThat(fake.flushed).as("then the one that has read meanwhile").containsExactly(0, 1);
  }

  @Test
  void whereAllRequestsAreSerializedFlushesAreToo() throws IOException {
    MultiConnFilter filter = filter(ThreadModel.SERIALIZE_ALL_REQUESTS);
    AtomicInteger inside = new AtomicInteger();
    AtomicInteger most = new AtomicInteger();
    FakeBackend.Hook count =
        () -> {
          most.accumulateAndGet(inside.incrementAndGet(), Math::max);
          Thread.onSpinWait();
          inside.decrementAndGet();
        };
    Handle[] handles = new Handle[4];
    for (int i = 0; i < handles.length; i++) {
      handles[i] = filter.open("", false);
      fake.handles.get(i).onFlush = count;
      fake.handles.get(i).onWrite = count;
      fake.handles.get(i).onRead = count;
    }
    Running[] running = new Running[handles.length];
    for (int i = 0; i < handles.length; i++) {
      Handle handle = handles[i];
      running[i] =
          Running.start(
              () -> {
                for (int n = 0; n < 500; n++) {
                  Calls.write(handle);
                  Calls.read(handle);
                  handle.flush();
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
    MultiConnFilter filter = filter(ThreadModel.SERIALIZE_ALL_REQUESTS);
    Handle reader = filter.open("", false);
    Handle writer = filter.open("", false);
    Calls.write(writer);
    Gate inRead = new Gate();
    fake.handles.get(0).onRead = inRead;
    Running read = Running.start(() -> Calls.read(reader));
    inRead.awaitReached();
    Running flush = Running.start(writer::flush);
    flush.awaitParked();

    inRead.open();
    read.join();
    flush.join();

    assertThat(fake.flushed).containsExactly(1, 0);
  }
}
