package nbd.threads;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Pipe;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;

/** The settings of the JDK's virtual threads, made before the first of them starts. */
public final class VirtualThreads {
  private static final String POLLER_MODE = "jdk.pollerMode";

  private VirtualThreads() {}

  /**
   * Makes platform threads poll the sockets, unless the user chooses. By default on Linux a virtual
   * thread polls them, and wakes the connection's: one hop more. Measured: that cost a connection
   * with one request in flight a fifth of its requests a second, and gained nothing with more.
   */
  public static void configure() {
    if (System.getProperty(POLLER_MODE) == null) {
      System.setProperty(POLLER_MODE, "1");
    }
  }

  /**
   * Opens the descriptors by which the JDK polls sockets for virtual threads. The JDK opens them
   * when the first virtual thread waits; if no descriptor is left then, its class for them stays
   * unusable, and every connection fails until the program is started again.
   *
   * @throws IOException if there are too few descriptors; the message is for the user
   */
  public static void openPollers() throws IOException {
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
