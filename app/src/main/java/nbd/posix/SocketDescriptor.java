package nbd.posix;

import java.io.IOException;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.net.SocketOption;
import java.net.StandardSocketOptions;
import java.nio.channels.NetworkChannel;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.OptionalInt;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The descriptor of a socket, which the JDK keeps in {@code sun.nio.ch}; the jar's manifest exports
 * that package (Add-Exports).
 */
final class SocketDescriptor {
  private static final @Nullable MethodHandle GETTER = getter();

  /** More than the smallest receive buffer, and less than the longest time that is kept exactly. */
  private static final int LEAST_MARK = 8 << 10;

  private static final int MOST_MARK = 30_000;
  private static final AtomicInteger MARKS = new AtomicInteger(LEAST_MARK);

  private SocketDescriptor() {}

  private static @Nullable MethodHandle getter() {
    try {
      Class<?> channel = Class.forName("sun.nio.ch.SelChImpl");
      return MethodHandles.lookup()
          .findVirtual(channel, "getFDVal", MethodType.methodType(int.class))
          .asType(MethodType.methodType(int.class, NetworkChannel.class));
    } catch (ReflectiveOperationException | RuntimeException hidden) {
      Logger.debug("the descriptors of sockets are not known: {}", hidden.getMessage());
      return null;
    }
  }

  /** Returns the descriptor, which another file may get once the socket is closed. */
  static OptionalInt of(NetworkChannel channel) {
    if (GETTER == null) {
      return OptionalInt.empty();
    }
    try {
      return OptionalInt.of((int) GETTER.invokeExact(channel));
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  /**
   * Finds the descriptor, also where the JDK hides it: there an option of the channel gets a value
   * that no other socket of the process has, for as long as it takes to look at all descriptors.
   *
   * @param channel a {@link SocketChannel} or {@link ServerSocketChannel}, open
   * @throws IOException if the channel is closed, or this is no 64-bit Linux with /proc
   */
  static int find(NetworkChannel channel) throws IOException {
    OptionalInt known = of(channel);
    if (known.isPresent()) {
      return known.getAsInt();
    }
    int mark = MARKS.updateAndGet(last -> last >= MOST_MARK ? LEAST_MARK : last + 1);
    if (channel instanceof ServerSocketChannel) {
      int before = channel.getOption(StandardSocketOptions.SO_RCVBUF);
      // The kernel counts double, for its own use.
      return marked(
          channel,
          StandardSocketOptions.SO_RCVBUF,
          mark,
          before / 2,
          RawSocket.SO_RCVBUF,
          2 * mark);
    }
    int before = channel.getOption(StandardSocketOptions.SO_LINGER);
    return marked(
        channel, StandardSocketOptions.SO_LINGER, mark, before, RawSocket.SO_LINGER, mark);
  }

  private static int marked(
      NetworkChannel channel,
      SocketOption<Integer> option,
      int mark,
      int before,
      int number,
      int seen)
      throws IOException {
    channel.setOption(option, mark);
    try (DirectoryStream<Path> descriptors = Files.newDirectoryStream(Path.of("/proc/self/fd"))) {
      for (Path descriptor : descriptors) {
        int fd = Integer.parseInt(descriptor.getFileName().toString());
        if (hasOption(fd, number, seen)) {
          return fd;
        }
      }
    } finally {
      channel.setOption(option, before);
    }
    throw new IOException("the descriptor of a socket cannot be found in /proc/self/fd");
  }

  private static boolean hasOption(int fd, int number, int value) throws IOException {
    try {
      return new RawSocket(fd).option(number) == value;
    } catch (PosixException notSocket) {
      return false;
    }
  }
}
