package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Backend;
import nbd.storage.ExportFacts;
import nbd.storage.Extent;
import nbd.storage.Outcome;
import nbd.testing.CheckedClient;
import nbd.testing.CheckedClient.Answer;
import nbd.testing.CheckedClient.StatusExtent;
import nbd.testing.HookedBackend;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** The answers to BLOCK_STATUS for data, holes and zeroes. */
@Timeout(300)
final class BlockStatusTest {
  private static final int EINVAL = RawClient.EINVAL;
  private static final int PAGE = 1 << 16;
  private static final int ONE = RawClient.REQ_ONE;

  /** Storage of any size whose extents a test decides. */
  @FunctionalInterface
  private interface Extents {
    List<Extent> of(long offset, long length, int most) throws IOException;
  }

  private static Backend storage(long size, BlockSizes sizes, Extents extents) {
    return new HookedBackend(
        new NullBackend(size),
        facts ->
            new ExportFacts(
                size,
                sizes,
                facts.capabilities().with(nbd.storage.Capability.EXTENTS),
                "",
                facts.identity()),
        (next, operation, patience, end) -> {
          if (operation.command() != Command.BLOCK_STATUS) {
            return next.perform(operation, patience, end);
          }
          operation.answer(extents.of(operation.offset(), operation.length(), operation.most()));
          return Outcome.DONE;
        });
  }

  private static Backend storage(long size, Extents extents) {
    return storage(size, BlockSizes.DEFAULT, extents);
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void dataAndHolesOfASparseImage(Replies replies) throws IOException {
    try (TestServer server = TestServer.of(new MemoryBackend(10L << 30));
        CheckedClient client = server.enter(replies)) {
      client.write(5L << 30, new byte[100_000]);
      client.write((10L << 30) - 1, (byte) 1);
      long length = 4L << 20;
      assertThat(client.status(0, 5L << 30, length))
          .containsExactly(new StatusExtent(2 * PAGE, 0), new StatusExtent(length - 2 * PAGE, 3));
      assertThat(client.status(0, (5L << 30) + 1, PAGE)).containsExactly(new StatusExtent(PAGE, 0));
      assertThat(client.status(0, (10L << 30) - PAGE - 7, PAGE + 7))
          .containsExactly(new StatusExtent(7, 3), new StatusExtent(PAGE, 0));
      assertThat(client.status(ONE, 5L << 30, length))
          .containsExactly(new StatusExtent(2 * PAGE, 0));
      assertThat(client.status(ONE, 5L << 30, 5)).containsExactly(new StatusExtent(5, 0));
      client.call(0, RawClient.FUA | ONE, RawClient.BLOCK_STATUS, 0, 1);
      client.disconnect();
    }
  }

  @Test
  void terabytesAreDescribedTrimmedZeroedAndCachedAtOnce() throws IOException {
    long size = 10L << 40;
    try (TestServer server = TestServer.of(new MemoryBackend(size));
        CheckedClient client = server.enter(Replies.EXTENDED)) {
      client.write(5L << 40, new byte[PAGE]);
      client.write(size - 1, (byte) 9);
      client.call(0, 0, RawClient.CACHE, 0, size);
      assertThat(client.status(0, 0, size))
          .containsExactly(
              new StatusExtent(5L << 40, 3),
              new StatusExtent(PAGE, 0),
              new StatusExtent((5L << 40) - 2 * PAGE, 3),
              new StatusExtent(PAGE, 0));
      client.call(0, RawClient.FUA, RawClient.TRIM, 0, size - PAGE);
      client.call(0, 0, RawClient.WRITE_ZEROES, 0, size);
      assertThat(client.status(0, 0, size)).containsExactly(new StatusExtent(size, 3));
      assertThat(client.read(size - 1, 1)).containsOnly(0);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void storageThatKnowsNothingIsData(Replies replies) throws IOException {
    try (TestServer server = TestServer.of(new NullBackend(8L << 30));
        CheckedClient client = server.enter(replies)) {
      for (int flags : new int[] {0, ONE}) {
        assertThat(client.status(flags, 10, 0xfffffff0L))
            .containsExactly(new StatusExtent(0xfffffff0L, 0));
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aFragmentedImageIsToldInBoundedReplies(Replies replies) throws IOException {
    long size = 1L << 30;
    AtomicInteger largest = new AtomicInteger();
    Backend fragmented =
        storage(
            size,
            (offset, length, most) -> {
              largest.accumulateAndGet(most, Math::max);
              List<Extent> all = new ArrayList<>();
              for (long at = offset; at < offset + length && all.size() < most; at += 4096) {
                boolean hole = at / 4096 % 2 == 0;
                all.add(hole ? Extent.hole(4096) : Extent.data(4096));
              }
              return all;
            });
    try (TestServer server = TestServer.of(fragmented);
        CheckedClient client = server.enter(replies)) {
      long at = 0;
      int count = 0;
      while (at < size) {
        long before = client.bytesTaken();
        for (StatusExtent told : client.status(0, at, size - at)) {
          assertThat(told).isEqualTo(new StatusExtent(4096, at / 4096 % 2 == 0 ? 3 : 0));
          at += told.length();
        }
        assertThat(client.bytesTaken() - before).isLessThan(70_000);
        count++;
      }
      assertThat(count).isLessThan(100);
      assertThat(largest.get()).isLessThanOrEqualTo(1 << 20);
      assertThat(client.status(ONE, 4096, size - 4096)).containsExactly(new StatusExtent(4096, 0));
      client.disconnect();
    }
  }

  /** Storage that answers little at a time is asked again, but not for ever. */
  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void littleAnswersAreJoinedAndQuestionsAreBounded(Replies replies) throws IOException {
    AtomicInteger questions = new AtomicInteger();
    Backend slow =
        storage(
            1L << 40,
            (offset, length, most) -> {
              questions.incrementAndGet();
              return List.of(Extent.data(Math.min(512, length)));
            });
    try (TestServer server = TestServer.of(slow);
        CheckedClient client = server.enter(replies)) {
      assertThat(client.status(0, 0, 2000)).containsExactly(new StatusExtent(2000, 0));
      assertThat(questions.getAndSet(0)).isEqualTo(4);
      List<StatusExtent> told = client.status(0, 0, 0xffff_f000L);
      assertThat(told).hasSize(1);
      assertThat(told.getFirst().length()).isEqualTo(512L * questions.get());
      assertThat(questions.get()).isBetween(2, 100);
      client.disconnect();
    }
  }

  /** The last extent may run past the range, and past what 32 bits can tell. */
  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void anExtentOfTerabytesIsCutToWhatTheLayoutCanTell(Replies replies) throws IOException {
    long size = 8L << 40;
    BlockSizes sizes = new BlockSizes(4096, 4096, 1 << 20);
    Backend huge =
        storage(size, sizes, (offset, length, most) -> List.of(Extent.hole(size - offset)));
    boolean wide = replies == Replies.EXTENDED;
    try (TestServer server = TestServer.of(huge);
        CheckedClient client = server.enter(replies)) {
      long told = wide ? size - 4096 : 0xfffff000L;
      assertThat(client.status(0, 4096, 4096)).containsExactly(new StatusExtent(told, 3));
      assertThat(client.status(ONE, 4096, 8192)).containsExactly(new StatusExtent(8192, 3));
      assertThat(client.status(0, size - 4096, 4096)).containsExactly(new StatusExtent(4096, 3));
      if (wide) {
        assertThat(client.status(ONE, 0, size)).containsExactly(new StatusExtent(size, 3));
        client.call(EINVAL, 0, RawClient.BLOCK_STATUS, 0, size + 4096);
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aFailureOfTheStorageIsAnError(Replies replies) throws Exception {
    Backend failing =
        storage(
            1 << 20,
            (offset, length, most) -> {
              if (offset == 0) {
                throw new NbdException(NbdError.EIO, "no map");
              }
              if (offset == 1) {
                throw new IllegalStateException("mistake");
              }
              return List.of();
            });
    try (TestServer server = TestServer.of(failing);
        CheckedClient client = server.enter(replies)) {
      server.expectErrors();
      int eio = RawClient.EIO;
      Answer answer = client.call(eio, 0, RawClient.BLOCK_STATUS, 0, 512);
      assertThat(answer.message()).isEqualTo("no map");
      client.call(eio, 0, RawClient.BLOCK_STATUS, 1, 512);
      client.call(eio, 0, RawClient.BLOCK_STATUS, 2, 512);
      client.read(0, 512);
      client.disconnect();
    }
  }

  /** A model of random pages; every range's extents are the model's. */
  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void anyRangeIsToldAsItIs(Replies replies) throws IOException {
    long seed = 51;
    Random random = new Random(seed);
    int pages = 200;
    boolean[] data = new boolean[pages];
    try (TestServer server = TestServer.of(new MemoryBackend((long) pages * PAGE));
        CheckedClient client = server.enter(replies)) {
      for (int i = 0; i < 300; i++) {
        int first = random.nextInt(pages);
        int count = Math.min(pages - first, 1 + random.nextInt(10));
        boolean write = random.nextInt(3) > 0;
        if (write) {
          client.write((long) first * PAGE, new byte[count * PAGE]);
        } else {
          client.ask(0, RawClient.TRIM, (long) first * PAGE, (long) count * PAGE);
        }
        java.util.Arrays.fill(data, first, first + count, write);
        int start = random.nextInt(pages * PAGE);
        int length = 1 + random.nextInt(pages * PAGE - start);
        long at = start;
        for (StatusExtent told : client.status(0, start, length)) {
          long end = at + told.length();
          for (; at < end; at = Math.min(end, (at / PAGE + 1) * PAGE)) {
            boolean expected = data[(int) (at / PAGE)];
            assertThat(told.status()).as("seed %d, at %d", seed, at).isEqualTo(expected ? 0 : 3);
          }
        }
        assertThat(at).isEqualTo(start + length);
      }
      client.disconnect();
    }
  }
}
