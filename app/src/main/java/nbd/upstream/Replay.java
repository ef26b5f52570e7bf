package nbd.upstream;

import java.io.IOException;
import java.util.List;
import java.util.Optional;
import nbd.protocol.Command;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.Operation;
import org.jspecify.annotations.Nullable;

/** The first steps on a new connection of a {@link Session}: what is at risk is made again. */
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
   * Connects, makes everything again and flushes it.
   *
   * @throws ImpossibleException if that will never be
   */
  Handle open(List<Operation> answered) throws IOException {
    Handle made = session.opening.open();
    boolean done = false;
    try {
      Optional<String> difference = made.facts().differenceTo(session.facts);
      if (difference.isPresent()) {
        throw new ImpossibleException(difference.get());
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

  /**
   * The break that a failure means; null if it means none. A server that stops answers requests in
   * flight with ESHUTDOWN, and may be back soon.
   */
  static @Nullable LostException breakOf(IOException failure) {
    if (failure instanceof LostException broken) {
      return broken;
    }
    return failure instanceof NbdException refused && refused.error() == NbdError.ESHUTDOWN
        ? new LostException(NbdError.EIO, String.valueOf(refused.getMessage()))
        : null;
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
      // The contents of what was trimmed are undefined anyway.
      if (broken != null || operation.command() != Command.TRIM) {
        throw giveUp(broken, "what was answered cannot be written again", failure);
      }
    }
  }

  private static void flushAgain(Handle made) throws IOException {
    try {
      made.flush();
    } catch (IOException failure) {
      throw giveUp(breakOf(failure), "what was written again cannot be flushed", failure);
    }
  }

  /** Gives the exception to throw: a break is tried again, a refusal is not. */
  private static IOException giveUp(
      @Nullable LostException broken, String what, IOException failure) {
    return broken != null ? broken : new ImpossibleException(what + ": " + failure.getMessage());
  }
}
