package nbd.check;

import java.io.IOException;

/** A way to end the server abruptly and to start it again. */
@FunctionalInterface
public interface Restart {
  /**
   * Ends the server without a chance to write anything, and starts it again, or something that soon
   * will.
   *
   * @throws IOException if that failed; the message is for the user
   */
  void run() throws IOException;

  /** Returns the failure where no connection could be made afterwards. */
  static IOException failed(IOException down) {
    return new IOException(down.getMessage() + "; was the server started again?", down);
  }
}
