package nbd.posix;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.EOFException;
import java.io.IOException;
import java.net.SocketTimeoutException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import nbd.posix.FilePassing.Message;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Messages and open files between two ends of a Unix socket. */
@Timeout(300)
final class PassingSocketTest {
  private static final Duration LONG = Duration.ofMinutes(2);
  private static final Duration SHORT = Duration.ofMillis(50);

  @TempDir private Path directory;
  private SocketChannel left;
  private SocketChannel right;
  private PassingSocket sender;
  private PassingSocket receiver;

  @BeforeEach
  void connect() throws IOException {
    Path path = directory.resolve("socket");
    try (ServerSocketChannel listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      listener.bind(UnixDomainSocketAddress.of(path));
      left = SocketChannel.open(UnixDomainSocketAddress.of(path));
      right = listener.accept();
    }
    sender = new PassingSocket(left);
    receiver = new PassingSocket(right);
  }

  @AfterEach
  void disconnect() throws IOException {
    sender.close();
    receiver.close();
    left.close();
    right.close();
  }

  private static ByteBuffer bytes(String text) {
    return ByteBuffer.wrap(text.getBytes(UTF_8));
  }

  private Descriptor open(String name, String content) throws IOException {
    Path file = Files.writeString(directory.resolve(name), content);
    try (PosixFile opened = PosixFile.open(file, true, name).orElseThrow()) {
      return opened.copy();
    }
  }

  private static String content(Descriptor file) throws IOException {
    return Files.readString(Path.of("/proc/self/fd/" + file.number()));
  }

  @Test
  void aFileArrivesWithItsMessage() throws IOException {
    try (Descriptor one = open("one", "first");
        Descriptor two = open("two", "second")) {
      sender.send(bytes("hello"), List.of(one), LONG);
      sender.send(bytes(""), List.of(), LONG);
      sender.send(bytes("both"), List.of(two, one), LONG);
    }
    Message hello = receiver.receive(LONG);
    assertThat(hello.data()).isEqualTo(bytes("hello"));
    assertThat(hello.files()).hasSize(1);
    assertThat(content(hello.files().getFirst())).isEqualTo("first");
    Message empty = receiver.receive(LONG);
    assertThat(empty.data().remaining()).isZero();
    assertThat(empty.files()).isEmpty();
    Message both = receiver.receive(LONG);
    assertThat(content(both.files().getFirst())).isEqualTo("second");
    assertThat(content(both.files().getLast())).isEqualTo("first");
    hello.closeFiles();
    both.closeFiles();
  }

  @Test
  void asManyFilesAsMayBeArriveInTheirOrder() throws IOException {
    List<Descriptor> files =
        IntStream.range(0, PassingSocket.MOST_FILES)
            .mapToObj(
                i -> {
                  try {
                    return open("file" + i, "content " + i);
                  } catch (IOException failure) {
                    throw new AssertionError(failure);
                  }
                })
            .toList();
    sender.send(bytes("many"), files, LONG);
    Message message = receiver.receive(LONG);
    assertThat(message.files()).hasSize(PassingSocket.MOST_FILES);
    for (int i = 0; i < PassingSocket.MOST_FILES; i++) {
      assertThat(content(message.files().get(i))).isEqualTo("content " + i);
    }
    message.closeFiles();
    files.forEach(Descriptor::close);
  }

  @Test
  void aMessageLongerThanTheSocketsBufferArrives() throws Exception {
    byte[] data = new byte[PassingSocket.LONGEST];
    java.util.Arrays.fill(data, (byte) 7);
    FutureTask<Boolean> sending =
        new FutureTask<>(
            () -> {
              sender.send(ByteBuffer.wrap(data), List.of(), LONG);
              return true;
            });
    Thread.ofPlatform().start(sending);
    assertThat(receiver.receive(LONG).data()).isEqualTo(ByteBuffer.wrap(data));
    assertThat(sending.get(2, TimeUnit.MINUTES)).isTrue();
  }

  @Test
  void waitingEnds() {
    assertThatThrownBy(() -> receiver.receive(SHORT)).isInstanceOf(SocketTimeoutException.class);
    assertThatThrownBy(
            () -> sender.send(ByteBuffer.allocate(PassingSocket.LONGEST), List.of(), SHORT))
        .isInstanceOf(SocketTimeoutException.class);
  }

  @Test
  void theEndOfTheOtherProcessIsNoticed() throws IOException {
    left.write(ByteBuffer.allocate(2));
    sender.close();
    left.close();
    assertThatThrownBy(() -> receiver.receive(LONG)).isInstanceOf(EOFException.class);
    assertThatThrownBy(() -> receiver.send(bytes("x"), List.of(), LONG))
        .isInstanceOf(PosixException.class);
  }

  @Test
  void garbageIsNoMessage() throws IOException {
    left.write(ByteBuffer.wrap(new byte[] {-1, -1, -1, -1, 5}));
    assertThatThrownBy(() -> receiver.receive(LONG)).hasMessage("a message of -1 bytes");
  }

  @Test
  void filesOfAMessageThatIsCutShortAreClosed() throws IOException {
    long before = files();
    try (Descriptor one = open("one", "first")) {
      ByteBuffer cut = ByteBuffer.allocate(100);
      sender.send(cut, List.of(one), LONG);
    }
    // A second message of which only the header arrives.
    left.write(ByteBuffer.wrap(new byte[] {0, 0, 0, 9}));
    sender.close();
    left.close();
    receiver.receive(LONG).closeFiles();
    assertThatThrownBy(() -> receiver.receive(LONG)).isInstanceOf(EOFException.class);
    assertThat(files()).isLessThanOrEqualTo(before);
  }

  private long files() throws IOException {
    try (var open = Files.list(Path.of("/proc/self/fd"))) {
      return open.filter(
              each -> {
                try {
                  return Files.readSymbolicLink(each).startsWith(directory);
                } catch (IOException gone) {
                  return false;
                }
              })
          .count();
    }
  }
}
