package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executor;
import nbd.storage.Capabilities;
import nbd.storage.Handle;
import nbd.testing.Running;

/** A filter over a {@link FakeBackend}, and connections by number. */
final class Scene {
  final FakeBackend fake;
  final MultiConnFilter filter;
  private final List<Handle> handles = new ArrayList<>();

  private Scene(FakeBackend fake, MultiConnSettings settings) {
    this(fake, new MultiConnFilter(fake, settings));
  }

  private Scene(FakeBackend fake, MultiConnFilter filter) {
    this.fake = fake;
    this.filter = filter;
  }

  /** As {@link #emulating}, where something else runs the flushes that need a thread. */
  static Scene emulating(int connections, Executor executor) throws IOException {
    FakeBackend fake = new FakeBackend(FakeBackend.WRITABLE);
    Scene scene =
        new Scene(
            fake,
            new MultiConnFilter(
                fake, MultiConnSettings.DEFAULT.with(MultiConnMode.EMULATE), executor));
    scene.open(connections, "");
    return scene;
  }

  /** Connections to the export "", in emulate mode over a backend that is not multi-conn. */
  static Scene emulating(int connections) throws IOException {
    return of(FakeBackend.WRITABLE, MultiConnMode.EMULATE, TrackDirty.CONNECTION, connections);
  }

  static Scene of(
      Capabilities capabilities, MultiConnMode mode, TrackDirty tracking, int connections)
      throws IOException {
    Scene scene =
        new Scene(
            new FakeBackend(capabilities), new MultiConnSettings(mode, tracking, false, false));
    scene.open(connections, "");
    return scene;
  }

  static Scene byExportName(MultiConnMode mode) {
    return new Scene(
        new FakeBackend(FakeBackend.WRITABLE),
        new MultiConnSettings(mode, TrackDirty.CONNECTION, true, false));
  }

  void open(int connections, String exportName) throws IOException {
    for (int i = 0; i < connections; i++) {
      handles.add(filter.open(exportName, false));
    }
  }

  Handle handle(int number) {
    return handles.get(number);
  }

  FakeBackend.FakeHandle below(int number) {
    return fake.handles.get(number);
  }

  void read(int number) throws IOException {
    Calls.read(handle(number));
  }

  void write(int number) throws IOException {
    Calls.write(handle(number));
  }

  void flush(int number) throws IOException {
    handle(number).flush();
  }

  Running startFlush(int number) {
    return Running.start(handle(number)::flush);
  }

  /** Stops the flushes that enter a handle from now on. */
  Gate stopFlushes(int number) {
    Gate gate = new Gate();
    below(number).onFlush = gate;
    return gate;
  }

  /** Flushes on one connection, and says which handles were flushed. */
  List<Integer> flushed(int number) throws IOException {
    fake.takeFlushed();
    flush(number);
    assertThat(fake.faults).isEmpty();
    return fake.takeFlushed();
  }
}
