package nbd.cli;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Pipe;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;

/** Sets the virtual threads up, before the first of them starts. */
final class VirtualThreads {
  private static final String POLLER_MODE = "jdk.pollerMode";

  private VirtualThreads() {}

  /**
   * Lets platform threads wait for sockets. The JDK's default on Linux wakes a virtual thread for
   * that first, which then wakes the connection's: one hop more, which cost a fifth of the requests
   * a second with one connection and one request in flight, and nothing gained with more.
   */
  static void configure() {
    if (System.getProperty(POLLER_MODE) == null) {
      System.setProperty(POLLER_MODE, "1");
    }
  }

  /**
   * Opens the descriptors with which virtual threads wait for sockets. The JDK opens them when the
   * first one waits; if none are left then, its class for them stays unusable, and every connection
   * fails until the program is started again.
   *
   * @throws IOException if there are not enough; the message is for the user
   */
  static void openPollers() throws IOException {
    Pipe pipe = Pipe.open();
    try (Pipe.SourceChannel source = pipe.source();
        Pipe.SinkChannel sink = pipe.sink()) {
      FutureTask<Integer> reading = new FutureTask<>(() -> source.read(ByteBuffer.allocate(1)));
      Thread reader = Thread.ofVirtual().name("first to wait").start(reading);
      while (reader.getState() != Thread.State.WAITING && reader.isAlive()) {
        Thread.onSpinWait();
      }
      sink.write(ByteBuffer.allocate(1));
      reading.get();
    } catch (ExecutionException failed) {
      throw new IOException("too few file descriptors (ulimit -n)", failed);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
