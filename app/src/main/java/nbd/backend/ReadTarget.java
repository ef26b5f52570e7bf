package nbd.backend;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;

/** Where {@link Handle#transferNow} sends data to. */
public interface ReadTarget {
  /**
   * Promises the client the data; called once, before the first byte.
   *
   * @return where the data goes; it may take nothing from a file while the client is slow, and
   *     waits when it is given a buffer
   */
  WritableByteChannel begin() throws IOException;

  /**
   * Counts bytes that the channel has taken; told after each piece, so that after a failure it is
   * known where the data stopped.
   */
  void sent(long bytes);

  /**
   * A direct buffer for a piece that has to be copied, since the channel took none otherwise.
   *
   * @throws IOException if there is no memory for it
   */
  ByteBuffer piece() throws IOException;
}
