package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.locks.ReentrantLock;
import nbd.testing.Eventually;
import nbd.testing.Running;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Polling before waiting, on a real socket. */
@Timeout(60)
final class PolledInputTest {
  private static final Duration LONG = Duration.ofDays(1);
  private static final Duration SHORT = Duration.ofNanos(1);

  @TempDir private Path directory;
  private final ReentrantLock writing = new ReentrantLock();
  private final ByteBuffer buffer = ByteBuffer.allocate(8);
  private SocketChannel client = SocketChannel.open();
  private SocketChannel server = SocketChannel.open();

  PolledInputTest() throws IOException {}

  @BeforeEach
  void connect() throws IOException {
    UnixDomainSocketAddress address = UnixDomainSocketAddress.of(directory.resolve("s"));
    try (ServerSocketChannel listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      listener.bind(address);
      client.close();
      client = SocketChannel.open(address);
      server.close();
      server = listener.accept();
    }
  }

  @AfterEach
  void disconnect() throws IOException {
    client.close();
    server.close();
  }

  private PolledInput input(Duration patience) {
    return new PolledInput(server, writing, new TimeSlice(() -> false), patience);
  }

  private CompletableFuture<Integer> reading(PolledInput input) {
    CompletableFuture<Integer> result = new CompletableFuture<>();
    Thread.ofVirtual()
        .start(
            () -> {
              try {
                result.complete(input.read(buffer));
              } catch (IOException failure) {
                result.completeExceptionally(failure);
              }
            });
    return result;
  }

  private void send(int bytes) throws IOException {
    client.write(ByteBuffer.allocate(bytes));
  }

  private void awaitPolling() throws InterruptedException {
    Eventually.isTrue("it polls", () -> writing.isLocked() && !server.isBlocking());
  }

  @Test
  void whatArrivesWhileItPollsIsRead() throws Exception {
    CompletableFuture<Integer> read = reading(input(LONG));
    awaitPolling();
    send(3);
    assertThat(read.get()).isEqualTo(3);
    assertThat(server.isBlocking()).isTrue();
    assertThat(writing.isLocked()).isFalse();
  }

  @Test
  void whatArrivesLaterIsWaitedFor() throws Exception {
    CompletableFuture<Integer> read = reading(input(SHORT));
    Eventually.isTrue("it waits", () -> !writing.isLocked() && server.isBlocking());
    send(3);
    assertThat(read.get()).isEqualTo(3);
  }

  @Test
  void theEndIsSeenWhileItPolls() throws Exception {
    CompletableFuture<Integer> read = reading(input(LONG));
    awaitPolling();
    client.close();
    assertThat(read.get()).isEqualTo(-1);
  }

  @Test
  void aWriterDoesNotWaitForItToGiveUp() throws Exception {
    CompletableFuture<Integer> read = reading(input(LONG));
    awaitPolling();
    writing.lock();
    try {
      assertThat(server.isBlocking()).isTrue();
      assertThat(server.write(ByteBuffer.allocate(4))).isEqualTo(4);
    } finally {
      writing.unlock();
    }
    assertThat(read).isNotDone();
    send(1);
    assertThat(read.get()).isEqualTo(1);
  }

  @Test
  void itDoesNotPollWhileSomebodyWrites() throws Exception {
    writing.lock();
    try {
      CompletableFuture<Integer> read = reading(input(LONG));
      send(2);
      assertThat(read.get()).isEqualTo(2);
      assertThat(server.isBlocking()).isTrue();
    } finally {
      writing.unlock();
    }
  }

  @Test
  void itIsClosedWhileItPolls() throws Exception {
    CompletableFuture<Integer> read = reading(input(LONG));
    awaitPolling();
    server.close();
    assertThatThrownBy(read::get).hasCauseInstanceOf(ClosedChannelException.class);
    assertThat(writing.isLocked()).isFalse();
  }

  @Test
  void itsInputIsEndedWhileItPolls() throws Exception {
    CompletableFuture<Integer> read = reading(input(LONG));
    awaitPolling();
    server.shutdownInput();
    assertThat(read.get()).isEqualTo(-1);
  }

  @Test
  void itDoesNotPollWhereItIsCrowded() throws IOException {
    Arrivals arrivals = new Arrivals();
    try (PolledInput input = new PolledInput(server, arrivals, new TimeSlice(() -> true), LONG)) {
      send(2);
      assertThat(input.read(buffer)).isEqualTo(2);
    }
    assertThat(arrivals.polls).isZero();
  }

  @Test
  void afterPollingInVainItPollsLessAndLess() throws IOException {
    Arrivals lazy = new Arrivals();
    try (PolledInput input = new PolledInput(server, lazy, new TimeSlice(() -> false), SHORT)) {
      for (int i = 0; i < 63 + 5 * 64; i++) {
        send(1);
        assertThat(input.read(buffer.clear())).isEqualTo(1);
      }
      // Once, after 1, 3, 7, 15, 31 reads more, and then after 63 each time.
      assertThat(lazy.polls).isEqualTo(6 + 5);
      lazy.quick = true;
      for (int i = 0; i < 64 + 100; i++) {
        send(1);
        input.read(buffer.clear());
      }
      assertThat(lazy.polls).as("once it pays again, each time").isGreaterThan(11 + 100);
    }
  }

  /**
   * A lock that counts polls; a byte that was sent arrives after a poll, unless the client is
   * quick.
   */
  private final class Arrivals extends ReentrantLock {
    private static final long serialVersionUID = 1;

    private int polls;
    private boolean quick;

    @Override
    public boolean tryLock() {
      polls++;
      if (!quick) {
        run(() -> server.read(ByteBuffer.allocate(1)));
      }
      return super.tryLock();
    }

    @Override
    public void unlock() {
      super.unlock();
      if (!quick) {
        run(() -> client.write(ByteBuffer.allocate(1)));
      }
    }

    private void run(Running.Call call) {
      try {
        call.run();
      } catch (IOException impossible) {
        throw new AssertionError(impossible);
      }
    }
  }
}
