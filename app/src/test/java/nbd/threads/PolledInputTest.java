package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.Socket;
import java.net.SocketAddress;
import java.net.SocketOption;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.channels.spi.SelectorProvider;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.locks.ReentrantLock;
import nbd.testing.Eventually;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Asking before waiting, on a real socket. */
@Timeout(60)
final class PolledInputTest {
  private static final Duration LONG = Duration.ofDays(1);
  private static final Duration SHORT = Duration.ofNanos(1);

  @TempDir private Path directory;
  private final ReentrantLock writing = new ReentrantLock();
  private final ByteBuffer buffer = ByteBuffer.allocate(8);
  private SocketChannel client = SocketChannel.open();
  private SocketChannel server = SocketChannel.open();
  private boolean crowded;

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
    return new PolledInput(server, writing, new Turn(() -> crowded), patience);
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

  private void awaitAsking() throws InterruptedException {
    Eventually.isTrue("it asks", () -> writing.isLocked() && !server.isBlocking());
  }

  @Test
  void whatArrivesWhileItAsksIsRead() throws Exception {
    CompletableFuture<Integer> read = reading(input(LONG));
    awaitAsking();
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
  void theEndIsSeenWhileItAsks() throws Exception {
    CompletableFuture<Integer> read = reading(input(LONG));
    awaitAsking();
    client.close();
    assertThat(read.get()).isEqualTo(-1);
  }

  @Test
  void aWriterDoesNotWaitForItToGiveUp() throws Exception {
    CompletableFuture<Integer> read = reading(input(LONG));
    awaitAsking();
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
  void itDoesNotAskWhileSomebodyWrites() throws Exception {
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
  void itIsClosedWhileItAsks() throws Exception {
    CompletableFuture<Integer> read = reading(input(LONG));
    awaitAsking();
    server.close();
    assertThatThrownBy(read::get).hasCauseInstanceOf(ClosedChannelException.class);
    assertThat(writing.isLocked()).isFalse();
  }

  @Test
  void itsInputIsEndedWhileItAsks() throws Exception {
    CompletableFuture<Integer> read = reading(input(LONG));
    awaitAsking();
    server.shutdownInput();
    assertThat(read.get()).isEqualTo(-1);
  }

  @Test
  void itDoesNotAskWhereItIsCrowded() throws Exception {
    crowded = true;
    CompletableFuture<Integer> read = reading(input(LONG));
    // Were it asking, it would go on for a day, and one who waits for the lock would end that.
    for (int i = 0; i < 100; i++) {
      assertThat(writing.isLocked()).isFalse();
      Thread.sleep(1);
    }
    send(2);
    assertThat(read.get()).isEqualTo(2);
  }

  @Test
  void afterAskingInVainItAsksLessAndLess() throws IOException {
    FakeSocket lazy = new FakeSocket();
    try (PolledInput input = new PolledInput(lazy, writing, new Turn(() -> false), SHORT)) {
      int reads = 63 + 5 * 64;
      for (int i = 0; i < reads; i++) {
        assertThat(input.read(buffer.clear())).isEqualTo(1);
      }
      // Once, after 1, 3, 7, 15, 31 reads more, and then after 63 each time.
      assertThat(lazy.asked).isEqualTo(6 + 5);
      lazy.quick = true;
      for (int i = 0; i < 64 + 100; i++) {
        input.read(buffer.clear());
      }
      assertThat(lazy.asked).as("once it pays again, each time").isGreaterThan(11 + 100);
    }
  }

  /** A socket on which a byte arrives while it is asked if it is quick, else when waited for. */
  private static final class FakeSocket extends SocketChannel {
    private int asked;
    private boolean quick;

    FakeSocket() {
      super(SelectorProvider.provider());
    }

    @Override
    public int read(ByteBuffer into) {
      if (!isBlocking()) {
        asked++;
        if (!quick) {
          return 0;
        }
      }
      into.put((byte) 0);
      return 1;
    }

    @Override
    protected void implConfigureBlocking(boolean block) {}

    @Override
    protected void implCloseSelectableChannel() {}

    @Override
    public SocketChannel bind(SocketAddress local) {
      throw new UnsupportedOperationException();
    }

    @Override
    public <T> SocketChannel setOption(SocketOption<T> name, T value) {
      throw new UnsupportedOperationException();
    }

    @Override
    public <T> T getOption(SocketOption<T> name) {
      throw new UnsupportedOperationException();
    }

    @Override
    public Set<SocketOption<?>> supportedOptions() {
      return Set.of();
    }

    @Override
    public SocketChannel shutdownInput() {
      throw new UnsupportedOperationException();
    }

    @Override
    public SocketChannel shutdownOutput() {
      throw new UnsupportedOperationException();
    }

    @Override
    public Socket socket() {
      throw new UnsupportedOperationException();
    }

    @Override
    public boolean isConnected() {
      return true;
    }

    @Override
    public boolean isConnectionPending() {
      return false;
    }

    @Override
    public boolean connect(SocketAddress remote) {
      throw new UnsupportedOperationException();
    }

    @Override
    public boolean finishConnect() {
      return true;
    }

    @Override
    public SocketAddress getRemoteAddress() {
      throw new UnsupportedOperationException();
    }

    @Override
    public SocketAddress getLocalAddress() {
      throw new UnsupportedOperationException();
    }

    @Override
    public long read(ByteBuffer[] into, int offset, int length) {
      throw new UnsupportedOperationException();
    }

    @Override
    public int write(ByteBuffer from) {
      throw new UnsupportedOperationException();
    }

    @Override
    public long write(ByteBuffer[] from, int offset, int length) {
      throw new UnsupportedOperationException();
    }
  }
}
