package nbd.posix;

import java.io.EOFException;
import java.io.IOException;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.List;

/** A way for messages, and open files with them, from one process to another. */
public interface FilePassing extends AutoCloseable {
  /** A message, and the files that came with it, which the receiver owns. */
  record Message(ByteBuffer data, List<Descriptor> files) {
    /** Closes the files that nobody has released. */
    public void closeFiles() {
      files.forEach(Descriptor::close);
    }
  }

  /**
   * Sends a message.
   *
   * @param files stay the caller's
   * @param patience for the whole of it
   * @throws SocketTimeoutException if the other process does not take it in time
   */
  void send(ByteBuffer message, List<Descriptor> files, Duration patience) throws IOException;

  /**
   * Waits for a message.
   *
   * @param patience for the whole of it
   * @throws SocketTimeoutException if it does not come in time
   * @throws EOFException if the other process is gone, and has sent no more
   */
  Message receive(Duration patience) throws IOException;

  @Override
  void close();
}
