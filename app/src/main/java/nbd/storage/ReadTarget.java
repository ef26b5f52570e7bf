package nbd.storage;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;

/**
 * The client's side of a READ that is sent straight from storage; {@link Operation#transferring}.
 */
public interface ReadTarget {
  /**
   * Promises the client the data. Called once, before the first byte.
   *
   * @return the channel for data straight from a file; it may take none while the client is slow
   */
  WritableByteChannel begin() throws IOException;

  /**
   * Counts bytes that the channel has taken from a file. Called after each piece, so that after a
   * failure it is known where the data stopped.
   */
  void sent(long bytes);

  /**
   * Returns a direct buffer for a piece that has to be copied, since the channel took none.
   *
   * @throws IOException if there is no memory for it
   */
  ByteBuffer piece() throws IOException;

  /**
   * Sends a piece, and counts it. Waits until the client has taken it; a client that takes too long
   * while others need memory is disconnected, so this must not wait for storage.
   */
  void write(ByteBuffer piece) throws IOException;
}
