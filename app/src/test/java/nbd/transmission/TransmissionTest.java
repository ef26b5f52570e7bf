package nbd.transmission;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.time.Duration;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.locks.ReentrantLock;
import nbd.memory.MemoryBackend;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.ReplyFormat;
import nbd.protocol.RequestHeader;
import nbd.protocol.WireInput;
import nbd.storage.Handle;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.testing.HookedBackend;
import nbd.testing.ThirteenBytes;
import nbd.threads.ConnectionThreads;
import nbd.threads.TimeSlice;
import nbd.transmission.Admission.Share;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The patience with which the handle is asked: more each time, and never twice the same. */
@Timeout(300)
final class TransmissionTest {
  private static final int SIZE = 1 << 20;

  private final MemoryBackend memory = new MemoryBackend(SIZE);
  private final ThirteenBytes replies = new ThirteenBytes();

  /** The operations that the handle was asked for; those with FUA have an exclamation mark. */
  private final List<String> asked = new CopyOnWriteArrayList<>();

  private Handle impatient() {
    return HookedBackend.handle(
        memory.open("", false),
        (next, operation, patience, end) -> {
          asked.add(patience + (operation.fua() ? "!" : ""));
          return patience == Patience.WAIT
              ? next.perform(operation, patience, end)
              : Outcome.DECLINED;
        });
  }

  private static void add(ByteBuffer session, Command command, int flags, int length) {
    RequestHeader.write(session, false, flags, command, 7, 0, length);
    session.position(session.position() + (command == Command.WRITE ? length : 0));
  }

  private void serve(ByteBuffer session) throws IOException {
    byte[] bytes = new byte[session.position()];
    session.flip().get(bytes);
    WireInput in = new WireInput(Channels.newChannel(new ByteArrayInputStream(bytes)), 32 << 10);
    Admission admission = new Admission(Admission.MINIMUM_BYTES, Duration.ofMinutes(1));
    Share share = admission.open(() -> {});
    new Transmission(
            "test",
            in,
            new Replies(replies, new ReentrantLock(), share.buffers(), share.sending()),
            new OpenExport("", "", impatient(), ReplyFormat.SIMPLE, Set.of()),
            share,
            new TimeSlice(() -> false),
            new ConnectionThreads(() -> 1))
        .run(() -> true);
  }

  @ParameterizedTest
  @CsvSource({
    "READ, 0, 4096, AT_ONCE LATER WAIT",
    "READ, 0, 100000, AT_ONCE LATER WAIT",
    "READ, 1, 4096, AT_ONCE LATER WAIT",
    "WRITE, 0, 4096, AT_ONCE LATER WAIT",
    "WRITE, 0, 100000, AT_ONCE LATER WAIT",
    "WRITE, 1, 4096, AT_ONCE! LATER! WAIT!",
    "WRITE, 1, 100000, LATER! WAIT!",
    "TRIM, 0, 4096, AT_ONCE LATER WAIT",
    "TRIM, 1, 4096, LATER! WAIT!",
    "WRITE_ZEROES, 1, 4096, LATER! WAIT!",
    "CACHE, 1, 4096, AT_ONCE LATER WAIT",
    "FLUSH, 1, 0, AT_ONCE LATER WAIT",
    "WRITE, 0, 0, ''",
  })
  void aCommandTakesOneWayAfterTheOther(Command command, int flags, int length, String ways)
      throws IOException {
    ByteBuffer session = ByteBuffer.allocate(1 << 18);
    add(session, command, flags, length);
    serve(session);
    assertThat(String.join(" ", asked)).isEqualTo(ways);
    assertThat(replies.written()).hasSize(command == Command.READ ? 16 + length : 16);
  }

  @Test
  void aWriteWithFuaThatIsNotAloneIsNotTriedAtOnce() throws IOException {
    ByteBuffer session = ByteBuffer.allocate(1 << 18);
    add(session, Command.WRITE, 1, 4096);
    add(session, Command.READ, 0, 4096);
    serve(session);
    assertThat(asked).startsWith("LATER!").contains("AT_ONCE").doesNotContain("AT_ONCE!");
  }

  /** A question for extents costs more than copying the data of a few reads. */
  @Test
  void holesAreLookedForLessAndLessWhileThereAreNone() throws IOException {
    Handle handle = memory.open("", false);
    handle.write(ByteBuffer.allocate(SIZE), 0, CommandFlags.NONE);
    SparseReads reads = new SparseReads(handle, ReplyFormat.STRUCTURED);
    int questions = 0;
    for (int i = 0; i < 200; i++) {
      if (reads.asks(SIZE)) {
        questions++;
        assertThat(reads.parts(0, SIZE, CommandFlags.NONE)).hasSize(1);
      }
    }
    // After 1, 3, 7, 15, 31, 63 and again 63 reads without one.
    assertThat(questions).isEqualTo(8);
    assertThat(reads.asks(ReplyBatch.LONGEST_READ)).isFalse();
  }
}
