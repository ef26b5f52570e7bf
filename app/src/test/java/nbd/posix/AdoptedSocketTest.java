package nbd.posix;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.EOFException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ProtocolFamily;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.NetworkChannel;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.EnumSource.Mode;

/** Sockets that are known by their descriptors, under channels of the JDK. */
@Timeout(300)
final class AdoptedSocketTest {
  private static final int SIZE = 2 << 20;

  @TempDir private Path directory;

  @ParameterizedTest
  @EnumSource
  void aListenerAcceptsClientsOnVirtualThreads(StandardProtocolFamily family) throws Exception {
    SocketAddress address;
    int fd;
    try (ServerSocketChannel original = listener(family)) {
      address = original.getLocalAddress();
      fd = duplicate(original);
    }
    new RawSocket(fd).setNonBlocking(true);
    assertThat(AdoptedSocket.localAddress(fd)).isEqualTo(address);
    ServerSocketChannel adopted = AdoptedSocket.listener(fd);
    try (adopted;
        ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      Future<SocketChannel> accepted = threads.submit(adopted::accept);
      try (SocketChannel client = SocketChannel.open(address);
          SocketChannel server = accepted.get()) {
        echo(threads, client, server);
        assertThat(AdoptedSocket.remoteAddress(server)).isEqualTo(client.getLocalAddress());
      }
    }
    // No descriptor of it is left.
    assertThatThrownBy(() -> SocketChannel.open(address)).isInstanceOf(IOException.class);
  }

  @ParameterizedTest
  @EnumSource
  void aConnectionMovesDataOnVirtualAndPlatformThreads(StandardProtocolFamily family)
      throws Exception {
    try (ServerSocketChannel listener = listener(family);
        SocketChannel client = SocketChannel.open(listener.getLocalAddress());
        ExecutorService virtual = Executors.newVirtualThreadPerTaskExecutor();
        ExecutorService platform = Executors.newCachedThreadPool()) {
      SocketChannel first = accept(listener);
      // As a server leaves it that served it on a virtual thread.
      virtual.submit(() -> echoOnce(client, first)).get();
      SocketChannel second = AdoptedSocket.connected(moved(first));
      echo(virtual, client, second);
      SocketChannel third = virtual.submit(() -> AdoptedSocket.connected(moved(second))).get();
      echo(virtual, client, third);
      echo(platform, client, third);
      assertThat(AdoptedSocket.remoteAddress(third)).isEqualTo(client.getLocalAddress());
      third.close();
      assertThat(client.read(ByteBuffer.allocate(1))).as("the end").isEqualTo(-1);
    }
  }

  @Test
  void theModeOfTheSocketIsTheOneThatItsChannelCountsOn() throws Exception {
    for (boolean nonBlocking : new boolean[] {false, true}) {
      try (ServerSocketChannel listener = listener(StandardProtocolFamily.UNIX);
          SocketChannel client = SocketChannel.open(listener.getLocalAddress())) {
        int fd = moved(accept(listener));
        new RawSocket(fd).setNonBlocking(nonBlocking);
        try (SocketChannel adopted = AdoptedSocket.connected(fd)) {
          assertThat(new RawSocket(SocketDescriptor.find(adopted)).isNonBlocking()).isFalse();
          assertThat(client.isConnected()).isTrue();
        }
      }
      Files.delete(directory.resolve("socket"));
    }
  }

  @Test
  void noFileIsLeftBehind() throws Exception {
    Path temporary = Path.of(System.getProperty("java.io.tmpdir"));
    long before = sockets(temporary);
    try (ServerSocketChannel listener = listener(StandardProtocolFamily.UNIX);
        SocketChannel client = SocketChannel.open(listener.getLocalAddress());
        SocketChannel adopted = AdoptedSocket.connected(moved(accept(listener)));
        ServerSocketChannel again = AdoptedSocket.listener(duplicate(listener))) {
      assertThat(again.isOpen() && adopted.isOpen() && client.isOpen()).isTrue();
      // Other tests' may come and go.
      Eventually.isTrue("no file is left", () -> sockets(temporary) <= before);
    }
  }

  @ParameterizedTest
  @EnumSource(mode = Mode.EXCLUDE, names = "INET6")
  void aSocketInAnotherStateIsRefusedAndStays(StandardProtocolFamily family) throws Exception {
    try (ServerSocketChannel listener = listener(family);
        SocketChannel unconnected = SocketChannel.open(family)) {
      int listening = SocketDescriptor.find(listener);
      assertThatThrownBy(() -> AdoptedSocket.connected(listening))
          .hasMessage("descriptor %d is not connected", listening);
      int fresh = SocketDescriptor.find(unconnected);
      assertThatThrownBy(() -> AdoptedSocket.connected(fresh))
          .hasMessage("descriptor %d is not connected", fresh);
      assertThatThrownBy(() -> AdoptedSocket.listener(fresh))
          .hasMessage("descriptor %d is not a listening socket", fresh);
      unconnected.connect(listener.getLocalAddress());
      accept(listener).close();
    }
  }

  @Test
  void anythingElseIsRefused() throws Exception {
    Pipe pipe = Pipe.open(Calls.LINKED.orElseThrow());
    try {
      assertThatThrownBy(() -> AdoptedSocket.listener(pipe.source))
          .hasMessage("descriptor %d is not a socket", pipe.source);
      assertThatThrownBy(() -> AdoptedSocket.connected(pipe.sink))
          .hasMessage("descriptor %d is not a socket", pipe.sink);
    } finally {
      pipe.close();
    }
    assertThatThrownBy(() -> AdoptedSocket.connected(1_000_000_000))
        .hasMessage("descriptor 1000000000 is not open");
  }

  private ServerSocketChannel listener(ProtocolFamily family) throws IOException {
    ServerSocketChannel channel = ServerSocketChannel.open(family);
    return channel.bind(
        family == StandardProtocolFamily.UNIX
            ? UnixDomainSocketAddress.of(directory.resolve("socket"))
            : new InetSocketAddress(
                InetAddress.getByName(family == StandardProtocolFamily.INET ? "127.0.0.1" : "::1"),
                0));
  }

  private static SocketChannel accept(ServerSocketChannel listener) throws IOException {
    return listener.accept();
  }

  private static int duplicate(NetworkChannel channel) throws IOException {
    return new RawSocket(SocketDescriptor.find(channel)).duplicate();
  }

  /** Closes a channel, and returns a descriptor of its socket. */
  private static int moved(SocketChannel channel) throws IOException {
    try (channel) {
      return duplicate(channel);
    }
  }

  private static long sockets(Path in) {
    try (var files = Files.list(in)) {
      return files.filter(file -> file.getFileName().toString().startsWith("socket_")).count();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  /** Sends more than the socket holds, both ways; each thread has to wait for the other one. */
  private static void echo(ExecutorService threads, SocketChannel left, SocketChannel right)
      throws ExecutionException, InterruptedException {
    byte[] sent = Bytes.random(7, SIZE);
    Future<?> returning =
        threads.submit(
            () -> {
              ByteBuffer data = ByteBuffer.allocate(SIZE);
              fill(right, data);
              write(right, data);
              return null;
            });
    Future<?> sending = threads.submit(() -> write(left, ByteBuffer.wrap(sent)));
    ByteBuffer back = ByteBuffer.allocate(SIZE);
    threads.submit(() -> fill(left, back)).get();
    sending.get();
    returning.get();
    assertThat(back.array()).isEqualTo(sent);
  }

  private static boolean echoOnce(SocketChannel left, SocketChannel right) throws IOException {
    write(left, ByteBuffer.wrap(new byte[] {1}));
    return fill(right, ByteBuffer.allocate(1));
  }

  private static boolean write(SocketChannel channel, ByteBuffer data) throws IOException {
    while (data.hasRemaining()) {
      channel.write(data);
    }
    return true;
  }

  private static boolean fill(SocketChannel channel, ByteBuffer data) throws IOException {
    while (data.hasRemaining()) {
      if (channel.read(data) < 0) {
        throw new EOFException("the peer ended the stream");
      }
    }
    data.flip();
    return true;
  }
}
