package nbd.upstream;

import java.io.IOException;
import java.util.List;
import nbd.protocol.Command;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.Operation;
import org.jspecify.annotations.Nullable;

/**
 * Opens a connection of a {@link Session} again, and makes on it what was answered and is at risk.
 */
final class Replay {
  private final Session session;

  Replay(Session session) {
    this.session = session;
  }

  /** It makes no sense to go on with what is there now, or to try again. */
  static final class ImpossibleException extends IOException {
    private static final long serialVersionUID = 1;

    ImpossibleException(String message) {
      super(message);
    }
  }

  /**
   * Connects, and has everything made again and flushed.
   *
   * @throws ImpossibleException if that will never be
   */
  Handle open(List<Operation> answered) throws IOException {
    Handle made = session.opening.open();
    boolean done = false;
    try {
      String difference = difference(made);
      if (!difference.isEmpty()) {
        throw new ImpossibleException(difference);
      }
      for (Operation operation : answered) {
        makeAgain(made, operation);
      }
      if (!answered.isEmpty()) {
        flushAgain(made);
      }
      done = true;
      return made;
    } finally {
      if (!done) {
        session.close(made);
      }
    }
  }

  /** A server that stops answers what is in flight so, and may be back soon. */
  static @Nullable LostException breakOf(IOException failure) {
    if (failure instanceof LostException broken) {
      return broken;
    }
    return failure instanceof NbdException refused && refused.error() == NbdError.ESHUTDOWN
        ? new LostException(NbdError.EIO, String.valueOf(refused.getMessage()))
        : null;
  }

  /** How the export differs from what it was; empty if it does not. */
  String difference(Handle made) {
    if (made.size() != session.facts.size()) {
      return "it came back with %d bytes instead of %d"
          .formatted(made.size(), session.facts.size());
    }
    return made.blockSizes().equals(session.facts.blockSizes())
            && made.capabilities().equals(session.facts.capabilities())
        ? ""
        : "it came back with other flags or block sizes";
  }

  private static void makeAgain(Handle made, Operation operation) throws IOException {
    try {
      made.run(operation.copy());
    } catch (IOException failure) {
      LostException broken = breakOf(failure);
      if (broken != null && broken.mayStillHappen()) {
        throw new ImpossibleException(
            "what was answered is being written again, and the server, silent now, may do so over"
                + " newer data later: "
                + failure.getMessage());
      }
      if (broken != null) {
        throw broken;
      }
      // The contents of what was trimmed are undefined anyway.
      if (operation.command() != Command.TRIM) {
        throw new ImpossibleException(
            "what was answered cannot be written again: " + failure.getMessage());
      }
    }
  }

  private static void flushAgain(Handle made) throws IOException {
    try {
      made.flush();
    } catch (IOException failure) {
      LostException broken = breakOf(failure);
      throw broken != null
          ? broken
          : new ImpossibleException(
              "what was written again cannot be flushed: " + failure.getMessage());
    }
  }
}
