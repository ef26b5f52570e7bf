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

/**
 * Cases that run on each of some {@link Storage}s: one server for all cases, which at the end has
 * to have survived them, and to have given everything back.
 */
@Timeout(300)
abstract class StorageCases {
  /** A multiple of the minimum block size of every storage. */
  static final int UNIT = 4096;

  private static Optional<Served> current = Optional.empty();

  /** The storage of the case, set by JUnit. */
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

  /** Sends a request, and checks that the answer is one that the protocol allows. */
  static Answer ask(
      CheckedClient client, int flags, int type, long offset, long length, byte... payload)
      throws IOException {
    return served().rules(client).check(client, flags, type, offset, length, payload);
  }

  /** Writes if the export may be written, and says whether it was. */
  static boolean write(CheckedClient client, int flags, long offset, byte... data)
      throws IOException {
    int all = flags | client.writeFlags();
    return ask(client, all, RawClient.WRITE, offset, data.length, data).error() == 0;
  }
}
