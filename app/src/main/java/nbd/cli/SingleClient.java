package nbd.cli;

import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.List;
import nbd.posix.StandardSocket;
import org.tinylog.Logger;

/**
 * The client on standard input and output. Where these are not one socket, such as pipes, two
 * threads copy between them and a pair of sockets, since the server serves sockets.
 */
final class SingleClient {
  private static final int BUFFER_BYTES = 128 << 10;

  private final SocketChannel channel;
  private final List<Thread> output;

  private SingleClient(SocketChannel channel, List<Thread> output) {
    this.channel = channel;
    this.output = output;
  }

  /**
   * Takes the client over.
   *
   * @throws IOException if there is none, or this is no 64-bit Linux
   */
  static SingleClient connect() throws IOException {
    if (StandardSocket.isUsed()) {
      return new SingleClient(StandardSocket.open(), List.of());
    }
    StandardSocket.Pair pair = StandardSocket.pair();
    SocketChannel copied = pair.right();
    Thread.ofPlatform().daemon().name("standard input").start(() -> copyInput(copied));
    Thread output =
        Thread.ofPlatform().daemon().name("standard output").start(() -> copyOutput(copied));
    return new SingleClient(pair.left(), List.of(output));
  }

  /** The connection to the client. */
  SocketChannel channel() {
    return channel;
  }

  /**
   * Closes the channel, and waits until the client has been sent everything.
   *
   * @param patience the time that the client has to take it
   */
  void finish(Duration patience) throws IOException {
    channel.close();
    try {
      for (Thread thread : output) {
        boolean _ = thread.join(patience);
      }
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private static void copyInput(SocketChannel to) {
    byte[] buffer = new byte[BUFFER_BYTES];
    try (InputStream in = new FileInputStream(FileDescriptor.in)) {
      for (int count = in.read(buffer); count >= 0; count = in.read(buffer)) {
        ByteBuffer data = ByteBuffer.wrap(buffer, 0, count);
        while (data.hasRemaining()) {
          to.write(data);
        }
      }
      to.shutdownOutput();
    } catch (IOException gone) {
      end(to, gone);
    }
  }

  private static void copyOutput(SocketChannel from) {
    ByteBuffer buffer = ByteBuffer.allocate(BUFFER_BYTES);
    try (from;
        OutputStream out = new FileOutputStream(FileDescriptor.out)) {
      while (from.read(buffer) >= 0) {
        out.write(buffer.array(), 0, buffer.position());
        buffer.clear();
      }
    } catch (IOException gone) {
      end(from, gone);
    }
  }

  /** The server sees the end, too. */
  private static void end(SocketChannel copied, IOException gone) {
    Logger.debug("standard input and output: {}", gone.getMessage());
    try {
      copied.close();
    } catch (IOException failure) {
      Logger.debug("standard input and output: {}", failure.getMessage());
    }
  }
}
