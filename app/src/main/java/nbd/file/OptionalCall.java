package nbd.file;

import java.io.IOException;
import nbd.posix.PosixException;
import nbd.threads.BlockingCalls.Call;
import org.tinylog.Logger;

/**
 * A call that the file system or the device may lack; it is not made again after it was found
 * missing. Any thread may call.
 */
final class OptionalCall {
  private final String file;
  private volatile boolean missing;

  /**
   * Has been tried by nobody.
   *
   * @param file on which it is made, for messages
   */
  OptionalCall(String file) {
    this.file = file;
  }

  /** Makes the call; false if it is missing, and nothing has changed. */
  boolean make(Call call) throws IOException {
    if (missing) {
      return false;
    }
    try {
      call.run();
      return true;
    } catch (PosixException failure) {
      if (!failure.isUnsupported()) {
        throw failure;
      }
      missing = true;
      Logger.debug("{}: not supported here: {}", file, failure.getMessage());
      return false;
    }
  }
}
