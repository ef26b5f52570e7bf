package nbd.conformance;

import java.io.IOException;
import java.util.Optional;
import nbd.testing.CheckedClient;
import nbd.testing.CheckedClient.Answer;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.AfterParameterizedClassInvocation;
import org.junit.jupiter.params.BeforeParameterizedClassInvocation;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Cases that run on each {@link Storage}: one server for all of them, which at the end has to have
 * survived them, and to have given everything back.
 */
@ParameterizedClass(name = "{0}")
@EnumSource(Storage.class)
@Timeout(120)
abstract class EveryStorage {
  /** Requests at multiples of it are aligned everywhere. */
  static final int UNIT = 4096;

  private static Optional<Served> current = Optional.empty();

  /** JUnit sets it; what is done once for all cases is done with it. */
  @Parameter Storage storage = Storage.MEMORY;

  @BeforeParameterizedClassInvocation
  static void start(Storage storage) throws IOException {
    current = Optional.of(new Served(storage));
  }

  @AfterParameterizedClassInvocation
  static void stop() throws IOException {
    served().close();
  }

  static Served served() {
    return current.orElseThrow();
  }

  /** Sends a request; the answer has to be what the protocol says, success included. */
  static Answer ask(
      CheckedClient talk, int flags, int type, long offset, long length, byte... payload)
      throws IOException {
    return served().rules(talk).check(talk, flags, type, offset, length, payload);
  }

  /** Writes, if the export may be written; whether it was. */
  static boolean write(CheckedClient talk, int flags, long offset, byte... data)
      throws IOException {
    int all = flags | talk.writeFlags();
    return ask(talk, all, RawClient.WRITE, offset, data.length, data).error() == 0;
  }
}
