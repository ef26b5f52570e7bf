package nbd.storage;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;

/** Where a READ that is sent straight to the client goes; see {@link Operation#transfer}. */
public interface ReadTarget {
  /**
   * Promises the client the data; called once, before the first byte.
   *
   * @return where the data goes straight from a file; it may take nothing while the client is slow
   */
  WritableByteChannel begin() throws IOException;

  /**
   * Counts bytes that the channel has taken from a file; told after each piece, so that after a
   * failure it is known where the data stopped.
   */
  void sent(long bytes);

  /**
   * A direct buffer for a piece that has to be copied, since the channel took none otherwise.
   *
   * @throws IOException if there is no memory for it
   */
  ByteBuffer piece() throws IOException;

  /**
   * Sends a piece, and counts it. Waits until the client has taken it, which the client answers for
   * if others need the memory that it holds; so storage is never waited for in here.
   */
  void write(ByteBuffer piece) throws IOException;
}
