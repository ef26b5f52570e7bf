package nbd.conformance;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import nbd.protocol.TransmissionFlag;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.CheckedClient.Answer;
import nbd.testing.CheckedClient.StatusExtent;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Each command, with each of its flags, in each form of replies: those that the server has offered
 * work, the others are refused as the protocol says, and the next request always parses.
 */
final class CommandConformanceTest extends EveryStorage {
  private static final int EINVAL = 22;
  private static final int ENOTSUP = 95;
  private static final int NONE = 0;
  private static final int OFFSET_DATA = 1;
  private static final int OFFSET_HOLE = 2;
  private static final int REGION = 1 << 20;
  private static final byte[] RANDOM = Bytes.random(6, Storage.SIZE);

  private static byte[] part(byte[] all, int from, int length) {
    return Arrays.copyOfRange(all, from, from + length);
  }

  /** The flags are the storage's, with those that depend on what was agreed on. */
  @ParameterizedTest
  @EnumSource
  void theFlagsAreThoseOfTheStorage(Replies replies) throws IOException {
    try (CheckedClient client = served().enter(replies)) {
      Set<TransmissionFlag> told = EnumSet.allOf(TransmissionFlag.class);
      told.removeIf(flag -> !client.has(flag));
      assertThat(client.export().flags()).as("no bit without a name").isLessThan(1 << 13);
      assertThat(told).contains(TransmissionFlag.HAS_FLAGS).containsAll(storage.told());
      assertThat(told).as("what must not be told").noneMatch(storage.untold()::contains);
      assertThat(told).doesNotContain(TransmissionFlag.SEND_RESIZE);
      assertThat(told.contains(TransmissionFlag.SEND_DF)).isEqualTo(replies != Replies.SIMPLE);
      if (told.contains(TransmissionFlag.SEND_FAST_ZERO)) {
        assertThat(told).contains(TransmissionFlag.SEND_WRITE_ZEROES);
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void readGivesWhatWriteWrote(Replies replies) throws IOException {
    int maximum = served().blockSizes().maximumPayload();
    try (CheckedClient client = served().enter(replies)) {
      for (int length : new int[] {UNIT, 1 << 16, (1 << 16) + UNIT, 1 << 18, 1 << 20, maximum}) {
        assertThat(length).isLessThanOrEqualTo(maximum);
        byte[] data = part(RANDOM, length / UNIT, length);
        if (write(client, 0, UNIT, data)) {
          assertThat(Arrays.equals(client.read(UNIT, length), data))
              .as("%d bytes", length)
              .isTrue();
        } else {
          assertThat(client.read(UNIT, length)).hasSize(length);
        }
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void writesAndReadsMayBeginAndEndAnywhereBlocksDo(Replies replies) throws IOException {
    long seed = 17;
    Random random = new Random(seed);
    int block = served().blockSizes().minimum();
    try (CheckedClient client = served().enter(replies)) {
      byte[] model = client.read(0, REGION);
      for (int i = 0; i < 60; i++) {
        int from = random.nextInt(REGION / block) * block;
        int most = Math.min(REGION - from, Math.max(block, 1 << random.nextInt(19)));
        int length = (1 + random.nextInt(most / block)) * block;
        byte[] data = Bytes.random(i, length);
        if (write(client, 0, from, data)) {
          System.arraycopy(data, 0, model, from, length);
        }
        int at = random.nextInt(REGION / block) * block;
        int count = (1 + random.nextInt((REGION - at) / block)) * block;
        assertThat(Arrays.equals(client.read(at, count), part(model, at, count)))
            .as("seed %d, %d at %d", seed, count, at)
            .isTrue();
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void flushCoversEverythingAndTakesNoRange(Replies replies) throws IOException {
    try (CheckedClient client = served().enter(replies)) {
      write(client, 0, 0, new byte[UNIT]);
      ask(client, 0, RawClient.FLUSH, 0, 0);
      ask(client, 0, RawClient.FLUSH, UNIT, 0);
      ask(client, 0, RawClient.FLUSH, 0, UNIT);
      ask(client, 0, RawClient.FLUSH, -1, -1 >>> 1);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void everyCommandTakesFua(Replies replies) throws IOException {
    try (CheckedClient client = served().enter(replies)) {
      byte[] data = Bytes.random(1, 2 * UNIT);
      if (write(client, RawClient.FUA, UNIT, data)) {
        assertThat(client.read(UNIT, 2 * UNIT)).isEqualTo(data);
      }
      for (int type : new int[] {0, 4, 5, 6, 7}) {
        ask(client, RawClient.FUA, type, 8 * UNIT, UNIT);
      }
      ask(client, RawClient.FUA, RawClient.FLUSH, 0, 0);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void trimChangesNothingBesidesItsRange(Replies replies) throws IOException {
    byte[] data = Bytes.random(2, 64 * UNIT);
    try (CheckedClient client = served().enter(replies)) {
      boolean written = write(client, 0, 0, data);
      ask(client, 0, RawClient.TRIM, 3 * UNIT, 40 * UNIT);
      if (written) {
        assertThat(client.read(0, 3 * UNIT)).isEqualTo(part(data, 0, 3 * UNIT));
        assertThat(client.read(43 * UNIT, 21 * UNIT)).isEqualTo(part(data, 43 * UNIT, 21 * UNIT));
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void writeZeroesReadsBackAsZeroesWithHolesAndWithout(Replies replies) throws IOException {
    for (int flags :
        new int[] {0, RawClient.NO_HOLE, RawClient.FUA, RawClient.NO_HOLE | RawClient.FUA}) {
      zeroes(replies, flags);
    }
  }

  /** Zeroing that would not be faster than writing fails with ENOTSUP, and changes no data. */
  @ParameterizedTest
  @EnumSource
  void fastZeroIsFastOrRefused(Replies replies) throws IOException {
    zeroes(replies, RawClient.FAST_ZERO);
    zeroes(replies, RawClient.FAST_ZERO | RawClient.NO_HOLE);
  }

  private static void zeroes(Replies replies, int flags) throws IOException {
    byte[] data = Bytes.random(flags, 64 * UNIT);
    try (CheckedClient client = served().enter(replies)) {
      if (!write(client, 0, 0, data)) {
        data = client.read(0, data.length);
      }
      int error = ask(client, flags, RawClient.WRITE_ZEROES, 5 * UNIT, 33 * UNIT).error();
      if (error == 0) {
        Arrays.fill(data, 5 * UNIT, 38 * UNIT, (byte) 0);
      }
      assertThat(client.read(0, data.length)).as("after error %d", error).isEqualTo(data);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void cacheIsAHint(Replies replies) throws IOException {
    try (CheckedClient client = served().enter(replies)) {
      ask(client, 0, RawClient.CACHE, 0, Storage.SIZE);
      ask(client, 0, RawClient.CACHE, Storage.SIZE - UNIT, UNIT);
      client.disconnect();
    }
  }

  /** The client checks that there is one chunk of content. */
  @ParameterizedTest
  @EnumSource
  void aReadWithDfComesInOnePiece(Replies replies) throws IOException {
    int maximum = served().blockSizes().maximumPayload();
    try (CheckedClient client = served().enter(replies)) {
      write(client, 0, 1 << 16, new byte[UNIT]);
      for (int length : new int[] {UNIT, 1 << 16, 1 << 20, maximum}) {
        ask(client, RawClient.DF, RawClient.READ, 0, length);
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void blockStatusCoversTheRangeAndCallsNoDataZero(Replies replies) throws IOException {
    try (CheckedClient client = served().enter(replies)) {
      boolean written = write(client, 0, 1 << 20, Bytes.random(3, 1 << 20));
      if (replies == Replies.SIMPLE) {
        client.call(EINVAL, 0, RawClient.BLOCK_STATUS, 0, UNIT);
        return;
      }
      long at = 0;
      while (at < Storage.SIZE) {
        Answer answer = ask(client, 0, RawClient.BLOCK_STATUS, at, Storage.SIZE - at);
        assertThat(answer.types()).hasSize(1);
        for (StatusExtent extent : answer.extents()) {
          assertThat(extent.length()).isPositive();
          assertThat(extent.status()).isBetween(0L, 3L);
          boolean touches = at < 2 << 20 && at + extent.length() > 1 << 20;
          if (written && touches) {
            assertThat(extent.status() & 2).as("ZERO at %d", at).isZero();
          }
          at += extent.length();
        }
      }
      assertThat(at).as("the last ends at the export's end").isEqualTo(Storage.SIZE);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void blockStatusWithReqOneIsOneExtentInsideTheRange(Replies replies) throws IOException {
    try (CheckedClient client = served().enter(replies)) {
      for (long length : new long[] {UNIT, 1 << 20, Storage.SIZE}) {
        Answer answer = ask(client, RawClient.REQ_ONE, RawClient.BLOCK_STATUS, 0, length);
        if (answer.error() == 0) {
          assertThat(answer.types()).hasSize(1);
          assertThat(answer.extents()).hasSize(1);
          assertThat(answer.extents().getFirst().length()).isBetween(1L, length);
        }
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void aStatusPayloadNamesTheContextWhereThatIsOffered(Replies replies) throws IOException {
    try (CheckedClient client = served().enter(replies)) {
      boolean offered = client.has(TransmissionFlag.BLOCK_STATUS_PAYLOAD);
      assertThat(offered).isEqualTo(replies == Replies.EXTENDED);
      if (offered) {
        assertThat(client.filteredStatus(0, 0, UNIT, 1).extents()).isNotEmpty();
        assertThat(client.filteredStatus(0, 0, UNIT, 2).error()).isEqualTo(EINVAL);
        assertThat(client.filteredStatus(0, 0, UNIT, 1, 1).error()).isEqualTo(EINVAL);
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void everythingBeforeAGoodbyeIsDoneAndTheGoodbyeHasNoReply(Replies replies) throws IOException {
    byte[] data = Bytes.random(replies.name().hashCode(), 16 * UNIT);
    try (CheckedClient client = served().enter(replies)) {
      List<Long> cookies = new ArrayList<>();
      for (int i = 0; i < 16; i++) {
        byte[] unit = part(data, i * UNIT, UNIT);
        cookies.add(client.send(client.writeFlags(), RawClient.WRITE, (long) i * UNIT, UNIT, unit));
      }
      byte[] goodbye = new byte[replies == Replies.EXTENDED ? 32 : 28];
      byte[] magic =
          Bytes.of().u32(replies == Replies.EXTENDED ? 0x21e41c71 : 0x25609513).toArray();
      System.arraycopy(magic, 0, goodbye, 0, 4);
      goodbye[7] = 2;
      client.raw().send(goodbye);
      boolean written = true;
      for (long cookie : cookies) {
        written &= client.await(cookie).error() == 0;
      }
      client.raw().expectEnd();
      assertThat(written).isNotEqualTo(client.has(TransmissionFlag.READ_ONLY));
      if (written) {
        try (CheckedClient after = served().enter(replies)) {
          assertThat(after.read(0, data.length)).isEqualTo(data);
          after.disconnect();
        }
      }
    }
  }

  @ParameterizedTest
  @EnumSource
  void everyFlagOfEveryCommandIsTakenOrInvalid(Replies replies) throws IOException {
    try (CheckedClient client = served().enter(replies)) {
      for (int type : new int[] {0, 1, 3, 4, 5, 6, 7, 8}) {
        int length = type == RawClient.FLUSH ? 0 : UNIT;
        for (int bit = 0; bit < 16; bit++) {
          for (int others : new int[] {0, RawClient.FUA, client.writeFlags()}) {
            int flags = 1 << bit | others;
            boolean filter =
                type == RawClient.BLOCK_STATUS
                    && (flags & RawClient.PAYLOAD_LEN) != 0
                    && replies == Replies.EXTENDED;
            if (!filter) {
              ask(client, flags, type, 0, length);
            }
          }
        }
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource
  void everyLengthAtEveryOffsetIsServedOrAnsweredByTheTableOfErrors(Replies replies)
      throws IOException {
    long size = Storage.SIZE;
    long[] offsets = {0, 1, UNIT, size - UNIT, size - 1, size, size + 1, 1L << 62, 1L << 63, -1};
    long[] lengths = {0, 1, UNIT, UNIT + 1, 1 << 16, size, size + UNIT, 0xffffffffL};
    long[] wide = {1L << 32, 1L << 62, Long.MAX_VALUE, Long.MIN_VALUE, -UNIT, -1};
    try (CheckedClient client = served().enter(replies)) {
      for (int type : new int[] {0, 1, 4, 5, 6, 7}) {
        for (long offset : offsets) {
          for (long length : lengths) {
            boolean payload = type == RawClient.READ || type == RawClient.WRITE;
            if (!payload || length <= 1 << 16) {
              ask(client, type == RawClient.WRITE ? client.writeFlags() : 0, type, offset, length);
            }
          }
          if (replies == Replies.EXTENDED && type != RawClient.WRITE) {
            for (long length : wide) {
              ask(client, 0, type, offset, length);
            }
          }
        }
      }
      ask(client, 0, RawClient.READ, 0, 0xffffffffL);
      client.disconnect();
    }
  }

  /**
   * The replies fit into the sockets' buffers: the client takes none before it has sent all
   * requests.
   */
  @ParameterizedTest
  @EnumSource
  void requestsInFlightAreAnsweredOnceEachInAnyOrder(Replies replies) throws IOException {
    int count = 64;
    Random random = new Random(5);
    try (CheckedClient client = served().enter(replies)) {
      byte[] model = client.read(0, count * UNIT);
      boolean readOnly = client.has(TransmissionFlag.READ_ONLY);
      for (int round = 0; round < 5; round++) {
        List<Long> cookies = new ArrayList<>();
        for (int i = 0; i < count; i++) {
          boolean write = random.nextBoolean() && !readOnly;
          byte[] data = write ? Bytes.random(round * 100 + i, UNIT) : new byte[0];
          System.arraycopy(data, 0, model, i * UNIT, data.length);
          int flags = write ? client.writeFlags() : 0;
          cookies.add(client.send(flags, write ? 1 : 0, (long) i * UNIT, UNIT, data));
        }
        for (int i = count - 1; i >= 0; i--) {
          Answer answer = client.await(cookies.get(i));
          assertThat(answer.error()).as("request %d", i).isZero();
          if (answer.data().length > 0) {
            assertThat(answer.data()).isEqualTo(part(model, i * UNIT, UNIT));
          }
        }
        assertThat(Arrays.equals(client.read(0, model.length), model)).isTrue();
      }
      client.disconnect();
    }
  }

  /** The promise of CAN_MULTI_CONN: write, flush, then read, on three connections as on one. */
  @ParameterizedTest
  @EnumSource
  void aFlushOnOneConnectionCoversTheOthersWhereThatIsPromised(Replies replies) throws IOException {
    assumeTrue(served().takesSeveralClients(), "takes one client at a time");
    try (CheckedClient writer = served().enter(replies);
        CheckedClient flusher = served().enter(replies);
        CheckedClient reader = served().enter(replies)) {
      boolean promised = writer.has(TransmissionFlag.CAN_MULTI_CONN) && !storage.breaksItsPromise();
      for (int round = 0; round < 5; round++) {
        reader.read(0, UNIT);
        byte[] data = Bytes.random(round, UNIT);
        boolean written = write(writer, 0, 0, data);
        if (!askedToFlush(flusher) || !written || !promised) {
          continue;
        }
        assertThat(reader.read(0, UNIT)).as("round %d", round).isEqualTo(data);
      }
      writer.disconnect();
      flusher.disconnect();
      reader.disconnect();
    }
  }

  private static boolean askedToFlush(CheckedClient client) throws IOException {
    return ask(client, 0, RawClient.FLUSH, 0, 0).error() == 0;
  }

  @ParameterizedTest
  @EnumSource
  void fastZeroIsRefusedOnlyBecauseItIsNotFast(Replies replies) throws IOException {
    try (CheckedClient client = served().enter(replies)) {
      int error = client.ask(RawClient.FAST_ZERO, RawClient.WRITE_ZEROES, 0, UNIT).error();
      if (client.has(TransmissionFlag.SEND_FAST_ZERO)) {
        assertThat(error).isIn(0, ENOTSUP);
      } else {
        assertThat(error).isNotIn(0, ENOTSUP);
      }
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void dataComesInChunksOfDataWhereThereIsSome(Replies replies) throws IOException {
    try (CheckedClient client = served().enter(replies)) {
      byte[] data = Bytes.random(1, 1 << 20);
      boolean written =
          client.ask(client.writeFlags(), RawClient.WRITE, 0, data.length, data).error() == 0;
      Answer answer = client.ask(0, RawClient.READ, 0, data.length);
      if (written) {
        assertThat(answer.types()).contains(OFFSET_DATA).doesNotContain(OFFSET_HOLE);
      }
      assertThat(answer.types()).isSubsetOf(OFFSET_DATA, OFFSET_HOLE, NONE);
      client.disconnect();
    }
  }

  /**
   * Data that was never written may come as a hole; the client checks that the reply covers the
   * read.
   */
  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void holesComeAsHolesOrAsZeroes(Replies replies) throws IOException {
    int length = served().blockSizes().maximumPayload() / 2;
    try (CheckedClient client = served().enter(replies)) {
      Answer answer = client.ask(0, RawClient.READ, (long) Storage.SIZE - length, length);
      assertThat(answer.error()).isZero();
      assertThat(Arrays.equals(answer.data(), new byte[length])).as("zeroes").isTrue();
      assertThat(answer.types()).isSubsetOf(OFFSET_DATA, OFFSET_HOLE, NONE);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void successWithoutContentIsAChunkOfNothingOrASimpleReply(Replies replies) throws IOException {
    try (CheckedClient client = served().enter(replies)) {
      for (int type : new int[] {1, 4, 5, 6, 3}) {
        int unit = type == RawClient.FLUSH ? 0 : UNIT;
        Answer answer = client.ask(client.flagsOf(type), type, unit, unit);
        List<Integer> plain = List.of(replies == Replies.EXTENDED ? NONE : -1);
        assertThat(answer.types()).isEqualTo(answer.error() == 0 ? plain : List.of(0x8001));
        assertThat(answer.message().isEmpty()).isEqualTo(answer.error() == 0);
      }
      client.disconnect();
    }
  }
}
