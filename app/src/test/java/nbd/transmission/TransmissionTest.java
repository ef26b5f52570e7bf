package nbd.transmission;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.locks.ReentrantLock;
import java.util.stream.IntStream;
import nbd.filter.FilterHandle;
import nbd.memory.MemoryBackend;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.ReplyFormat;
import nbd.protocol.RequestHeader;
import nbd.protocol.WireInput;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
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
    return new FilterHandle(memory.open("", false)) {
      @Override
      public Outcome perform(Operation operation, Patience patience, Completion end)
          throws IOException {
        asked.add(patience + (operation.fua() ? "!" : ""));
        return patience == Patience.WAIT
            ? super.perform(operation, patience, end)
            : Outcome.DECLINED;
      }

      @Override
      public Optional<Prefetch> prefetch() {
        return Optional.of((offset, length) -> asked.add("EXPECT " + length));
      }
    };
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
    try (ConnectionThreads threads = new ConnectionThreads(() -> 1)) {
      new Transmission(
              "test",
              in,
              new Replies(replies, new ReentrantLock(), share.buffers(), share.sending()),
              new OpenExport("", "", impatient(), ReplyFormat.SIMPLE, Set.of()),
              share,
              new TimeSlice(() -> false),
              threads)
          .run(() -> true);
    }
  }

  @ParameterizedTest
  @CsvSource({
    "READ, 0, 4096, AT_ONCE LATER WAIT",
    "READ, 0, 100000, AT_ONCE LATER WAIT",
    "READ, 1, 4096, AT_ONCE LATER WAIT",
    "WRITE, 0, 4096, AT_ONCE LATER WAIT",
    "WRITE, 0, 100000, AT_ONCE LATER WAIT",
    "WRITE, 1, 4096, AT_ONCE! LATER! WAIT!",
    "WRITE, 1, 100000, AT_ONCE! LATER! WAIT!",
    "TRIM, 0, 4096, AT_ONCE LATER WAIT",
    "TRIM, 1, 4096, AT_ONCE! LATER! WAIT!",
    "WRITE_ZEROES, 1, 4096, AT_ONCE! LATER! WAIT!",
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
  void theDataOfEachReadThatHasArrivedBehindOneThatWaitsIsFetchedBeforeItIsRead()
      throws IOException {
    ByteBuffer session = ByteBuffer.allocate(1 << 18);
    for (int i = 1; i <= 40; i++) {
      add(session, Command.READ, 0, i);
    }
    serve(session);
    assertThat(asked.stream().filter(each -> each.startsWith("EXPECT")))
        .containsExactlyElementsOf(
            IntStream.rangeClosed(1, 40).mapToObj(i -> "EXPECT " + i).toList());
    assertThat(asked).startsWith("AT_ONCE", "LATER");
  }

  @ParameterizedTest
  @CsvSource({"WRITE, 4096", "FLUSH, 0", "READ, 2000000", "READ, 100000", "READ, 0"})
  void noDataIsFetchedBeforeItIsReadWhereSomethingElseHasArrived(Command other, int length)
      throws IOException {
    ByteBuffer session = ByteBuffer.allocate(1 << 18);
    add(session, Command.READ, 0, 1);
    for (int i = 0; i < 100; i++) {
      add(session, Command.READ, 0, 2);
    }
    add(session, other, 0, length);
    serve(session);
    assertThat(asked).hasSizeGreaterThan(300).noneMatch(each -> each.startsWith("EXPECT"));
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
