package nbd.multiconn;

import java.io.IOException;
import java.util.List;
import nbd.protocol.NbdException;

/** Makes the one error that a client gets of the failures that its flush met. */
final class Failures {
  private Failures() {}

  /** Throws, unless there are none: the first, with the others suppressed. */
  static void throwAny(List<IOException> failures) throws NbdException {
    if (failures.isEmpty()) {
      return;
    }
    IOException first = failures.getFirst();
    NbdException thrown = NbdException.copyOf(first);
    for (IOException other : failures.subList(1, failures.size())) {
      thrown.addSuppressed(other);
    }
    throw thrown;
  }
}
