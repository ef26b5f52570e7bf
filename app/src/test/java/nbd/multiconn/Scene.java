package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executor;
import java.util.function.UnaryOperator;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.testing.ContractBackend;
import nbd.testing.FakeBackend;
import nbd.testing.Gate;
import nbd.testing.Running;

/** A filter over fake storage, and its connections by their numbers. */
final class Scene {
  static final Capabilities MULTI_CONN = FakeBackend.all();
  static final Capabilities WRITABLE = MULTI_CONN.without(Capability.MULTI_CONN);

  final FakeBackend fake;
  final MultiConnFilter filter;
  private final ContractBackend contract;
  private final List<Handle> handles = new ArrayList<>();

  private Scene(
      Capabilities capabilities,
      MultiConnSettings settings,
      UnaryOperator<Backend> between,
      Executor executor) {
    fake = storage(capabilities);
    contract = new ContractBackend(fake);
    filter = new MultiConnFilter(between.apply(contract), settings, executor);
  }

  /** Makes storage that does every operation at once, as a file does reads and writes. */
  static FakeBackend storage(Capabilities capabilities) {
    return new FakeBackend(4096, BlockSizes.DEFAULT, capabilities).quick(operation -> true);
  }

  /** Opens connections in emulate mode, with something between the filter and the storage. */
  static Scene over(UnaryOperator<Backend> between, int connections) throws IOException {
    Scene scene =
        new Scene(WRITABLE, settings(MultiConnMode.EMULATE), between, Thread.ofVirtual()::start);
    scene.open(connections, "");
    return scene;
  }

  /** Opens connections in emulate mode, with an executor for the flushes that need a thread. */
  static Scene emulating(int connections, Executor executor) throws IOException {
    Scene scene =
        new Scene(WRITABLE, settings(MultiConnMode.EMULATE), UnaryOperator.identity(), executor);
    scene.open(connections, "");
    return scene;
  }

  /** Opens connections to the export "", in emulate mode over a backend that is not multi-conn. */
  static Scene emulating(int connections) throws IOException {
    return of(WRITABLE, MultiConnMode.EMULATE, TrackDirty.CONNECTION, connections);
  }

  /** Opens connections to the export "" of a multi-conn backend, in the mode auto. */
  static Scene multiConn(int connections) throws IOException {
    return of(MULTI_CONN, MultiConnMode.AUTO, TrackDirty.CONNECTION, connections);
  }

  static Scene of(
      Capabilities capabilities, MultiConnMode mode, TrackDirty tracking, int connections)
      throws IOException {
    Scene scene = of(capabilities, new MultiConnSettings(mode, tracking, false, false));
    scene.open(connections, "");
    return scene;
  }

  /** Makes a filter without connections. */
  static Scene of(Capabilities capabilities, MultiConnSettings settings) {
    return new Scene(capabilities, settings, UnaryOperator.identity(), Thread.ofVirtual()::start);
  }

  private static MultiConnSettings settings(MultiConnMode mode) {
    return MultiConnSettings.DEFAULT.with(mode);
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
    return fake.handles().get(number);
  }

  void read(int number) throws IOException {
    handle(number).read(ByteBuffer.allocate(512), 0);
  }

  void write(int... numbers) throws IOException {
    for (int number : numbers) {
      handle(number).write(ByteBuffer.allocate(512), 0, CommandFlags.NONE);
    }
  }

  void flush(int number) throws IOException {
    handle(number).flush();
  }

  void close(int... numbers) throws IOException {
    for (int number : numbers) {
      handle(number).close();
    }
  }

  Running startRead(int number) {
    return Running.start(() -> read(number));
  }

  Running startWrite(int number) {
    return Running.start(() -> write(number));
  }

  Running startFlush(int number) {
    return Running.start(() -> flush(number));
  }

  /** Starts a flush on each connection, and waits until all of them are waiting. */
  List<Running> startFlushes(int connections) {
    List<Running> flushes = new ArrayList<>();
    for (int i = 0; i < connections; i++) {
      flushes.add(startFlush(i));
    }
    Running.awaitParked(flushes);
    return flushes;
  }

  static void joinAll(List<Running> all) throws IOException {
    for (Running one : all) {
      one.join();
    }
  }

  /** Holds the first call of these commands on a handle, or of all if none is named. */
  Gate stop(int number, Command... commands) {
    Gate gate = new Gate();
    below(number).hook(gate, commands);
    return gate;
  }

  Gate stopFlush(int number) {
    return stop(number, Command.FLUSH);
  }

  /** Fails the flushes of a handle from now on. */
  void failFlushes(int number, Throwable failure) {
    below(number).hook(call -> throwIt(failure), Command.FLUSH);
  }

  void failFlushes(int number) {
    failFlushes(number, new IOException("broken"));
  }

  /** Holds the first flush of a handle; this one and all later ones fail. */
  Gate stopAndFailFlushes(int number, Throwable failure) {
    Gate gate = new Gate();
    below(number)
        .hook(
            call -> {
              gate.pass();
              throwIt(failure);
            },
            Command.FLUSH);
    return gate;
  }

  private static void throwIt(Throwable failure) throws IOException {
    switch (failure) {
      case IOException io -> throw io;
      case RuntimeException bug -> throw bug;
      case Error error -> throw error;
      default -> throw new AssertionError(failure);
    }
  }

  /** Removes the hooks of a handle. */
  void heal(int number) {
    below(number).hook(call -> {});
  }

  /** Breaks a handle for good. */
  void cut(int... numbers) {
    for (int number : numbers) {
      below(number).cut("the cable is cut", false);
    }
  }

  /** Checks that a flush on each connection reports lost writes, and that the next one does not. */
  void assertLossReportedOnce(int... numbers) throws IOException {
    for (int number : numbers) {
      assertThatThrownBy(() -> flush(number)).as("%d", number).hasMessageContaining("lost");
      flush(number);
    }
  }

  /** Flushes on one connection, and returns the handles that were flushed. */
  List<Integer> flushed(int number) throws IOException {
    takeFlushed();
    flush(number);
    return takeFlushed();
  }

  /** Returns the handles that were flushed since the last time that this was asked. */
  List<Integer> takeFlushed() {
    List<Integer> taken = fake.flushed();
    fake.forgetCalls();
    assertThat(contract.violations()).isEmpty();
    return taken;
  }

  /** Closes connections, and checks that no group is left. */
  void assertForgottenAfterClosing(int... numbers) throws IOException {
    close(numbers);
    assertThat(filter.groups()).isZero();
    assertThat(contract.violations()).isEmpty();
  }
}
