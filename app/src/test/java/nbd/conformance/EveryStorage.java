package nbd.conformance;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.Optional;
import java.util.Set;
import nbd.conformance.Talk.Outcome;
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
  static Outcome ask(Talk talk, int flags, int type, long offset, long length, byte... payload)
      throws IOException {
    Set<Integer> errors = served().rules(talk).errors(flags, type, offset, length);
    Outcome outcome = talk.await(talk.send(flags, type, offset, length, payload));
    if (errors.isEmpty()) {
      errors.add(0);
    }
    assertThat(outcome.error())
        .as("type %d flags %x length %x at %x", type, flags, length, offset)
        .isIn(errors);
    return outcome;
  }

  /** The same with a payload of zeroes where one belongs. */
  static Outcome askPlain(Talk talk, int flags, int type, long offset, long length)
      throws IOException {
    byte[] payload = new byte[talk.bringsPayload(flags, type) ? (int) length : 0];
    return ask(talk, flags, type, offset, length, payload);
  }

  /** Writes, if the export may be written; whether it was. */
  static boolean write(Talk talk, int flags, long offset, byte... data) throws IOException {
    int all = flags | talk.writeFlags();
    return ask(talk, all, Rules.WRITE, offset, data.length, data).error() == 0;
  }
}
