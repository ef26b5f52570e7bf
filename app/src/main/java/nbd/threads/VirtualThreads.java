package nbd.threads;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Pipe;
import java.nio.channels.WritableByteChannel;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.locks.LockSupport;

/** The settings of the JDK's virtual threads, made before the first of them starts. */
public final class VirtualThreads {
  private static final String POLLER_MODE = "jdk.pollerMode";
  private static final long POLL_NANOS = 50_000;

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
   * Puts a socket in non-blocking mode for good, as the JDK does when a virtual thread uses it. Its
   * readers and writers go on to wait, but a transfer from a file or a pipe moves no more than
   * fits.
   *
   * @param socket nobody else writes to it meanwhile
   */
  public static void stopBlocking(WritableByteChannel socket) throws IOException {
    FutureTask<Integer> nothing = new FutureTask<>(() -> socket.write(ByteBuffer.allocate(0)));
    Thread.ofVirtual().name("non-blocking mode").start(nothing);
    BlockingCalls.resultOf(nothing);
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
        LockSupport.parkNanos(POLL_NANOS);
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
