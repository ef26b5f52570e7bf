package nbd.transmission;

import java.io.IOException;
import nbd.protocol.Command;
import nbd.protocol.ErrorReply;
import nbd.protocol.NbdError;
import org.tinylog.Logger;

/**
 * The log of the failed commands of one client.
 *
 * @param peer names the connection
 */
record FailureLog(String peer) {
  /**
   * Logs that a command failed, and returns the error that answers it.
   *
   * @param failure of the storage, or of the server itself if it is no {@link IOException}
   */
  ErrorReply failed(Command command, long offset, long length, Throwable failure) {
    if (!(failure instanceof IOException ofStorage)) {
      Logger.error(failure, "{}: {} failed by a mistake in the server: {}", peer, command, failure);
      return new ErrorReply(NbdError.EIO, "a mistake in the server, which its log describes");
    }
    ErrorReply reply = ErrorReply.of(ofStorage);
    Logger.error(
        failure,
        "{}: {} of {} bytes at {} failed with {}: {}",
        peer,
        command,
        length,
        offset,
        reply.error(),
        failure.getMessage());
    return reply;
  }
}
