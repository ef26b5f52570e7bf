package nbd.client;

import static nbd.testing.ScriptedServer.ACK;
import static nbd.testing.ScriptedServer.GO;
import static nbd.testing.ScriptedServer.INFO;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.params.provider.Arguments.argumentSet;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.stream.Stream;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Extent;
import nbd.storage.LostException;
import nbd.testing.Bytes;
import nbd.testing.ScriptedServer;
import nbd.testing.ScriptedServer.Asked;
import nbd.testing.ScriptedServer.Peer;
import nbd.testing.ScriptedServer.Replies;
import nbd.testing.ScriptedServer.Script;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Replies to the client, in every form, right and wrong. */
@Timeout(300)
final class ClientRepliesTest {
  private static final int SIZE = 1 << 20;
  private static final int FLAGS = 0xdff;
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);

  private static final int NONE = 0;
  private static final int DATA = 1;
  private static final int HOLE = 2;
  private static final int STATUS = 5;
  private static final int STATUS_EXT = 6;
  private static final int ERROR = 0x8001;
  private static final int ERROR_OFFSET = 0x8002;

  /** The protocol's errors, and one that it does not define. */
  private static final int[] ERRORS = {1, 5, 12, 22, 28, 75, 95, 108, 9999};

  private static NbdClient open(ScriptedServer server) throws IOException {
    return NbdClient.connect(NbdUri.parse(server.uri()), "", ClientSettings.DEFAULT);
  }

  private static Script opened(Replies replies, Script then) {
    return client -> {
      client.open(replies, SIZE, FLAGS);
      then.play(client);
      client.awaitEnd();
    };
  }

  private static byte[] read(NbdClient client, long offset, int length) throws IOException {
    ByteBuffer into = ByteBuffer.allocateDirect(length + 2).position(1).limit(length + 1);
    client.read(into, offset);
    assertThat(into.hasRemaining()).isFalse();
    byte[] bytes = new byte[length];
    into.get(1, bytes);
    assertThat(into.clear().get(0)).as("before the range").isZero();
    assertThat(into.get(length + 1)).as("behind the range").isZero();
    return bytes;
  }

  @ParameterizedTest
  @EnumSource
  void everyCommandIsSentAndAnswered(Replies replies) throws IOException {
    byte[] data = Bytes.random(1, 5000);
    int payloadLength = replies == Replies.EXTENDED ? CommandFlag.PAYLOAD_LEN.bit() : 0;
    Script script =
        opened(
            replies,
            client -> {
              Asked read = expect(client, 0, 0, 4096, data.length);
              client.data(read, data);
              Asked write = expect(client, 1 | payloadLength, 1, 8192, data.length);
              assertThat(write.payload().array()).isEqualTo(data);
              client.done(write);
              client.done(expect(client, 0, 3, 0, 0));
              client.done(expect(client, 1, 4, 1, 2));
              client.done(expect(client, 1 | 2 | 16, 6, 3, 4));
              client.done(expect(client, 0, 5, 5, 6));
              assertThat(client.request().type()).as("goodbye").isEqualTo(2);
            });
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = open(server)) {
      assertThat(read(client, 4096, data.length)).isEqualTo(data);
      client.write(ByteBuffer.wrap(data), 8192, FUA);
      client.flush();
      client.trim(1, 2, FUA);
      client.zero(3, 4, FUA.with(CommandFlag.NO_HOLE).with(CommandFlag.FAST_ZERO));
      client.cache(5, 6);
    }
  }

  private static Asked expect(Peer client, int flags, int type, long offset, long length)
      throws IOException {
    Asked asked = client.request();
    assertThat(List.of(asked.flags(), asked.type(), asked.offset(), asked.length()))
        .isEqualTo(List.of(flags, type, offset, length));
    return asked;
  }

  @ParameterizedTest
  @EnumSource
  void aRefusedRequestFailsAndTheNextOneWorks(Replies replies) throws IOException {
    Script script =
        opened(
            replies,
            client -> {
              for (int error : ERRORS) {
                Asked asked = client.request();
                if (replies == Replies.SIMPLE) {
                  client.simple(asked, error);
                } else {
                  client.chunk(asked, true, ERROR, error(error, "because\nof it"));
                }
                client.data(client.request(), new byte[1]);
              }
            });
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = open(server)) {
      String names = "EPERM EIO ENOMEM EINVAL ENOSPC EOVERFLOW ENOTSUP ESHUTDOWN EINVAL";
      for (String name : names.split(" ")) {
        NbdError error = NbdError.valueOf(name);
        ByteBuffer into = ByteBuffer.allocate(10);
        assertThatThrownBy(() -> client.read(into, 100))
            .isExactlyInstanceOf(NbdException.class)
            .hasMessage(
                "%s: READ of 10 bytes at 100 failed: %s%s"
                    .formatted(
                        server.uri(), error, replies == Replies.SIMPLE ? "" : " (because of it)"))
            .satisfies(failure -> assertThat(((NbdException) failure).error()).isEqualTo(error));
        assertThat(into.position()).isZero();
        assertThat(read(client, 0, 1)).isEqualTo(new byte[1]);
      }
    }
  }

  private static byte[] error(int error, String text) {
    return Bytes.of().u32(error).u16(text.length()).text(text).toArray();
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aReadIsPutTogetherFromPiecesInAnyOrder(Replies replies) throws IOException {
    byte[] data = Bytes.random(2, 300);
    java.util.Arrays.fill(data, 100, 200, (byte) 0);
    Script script =
        opened(
            replies,
            client -> {
              Asked asked = client.request();
              client
                  .chunk(asked, false, DATA, piece(1200, data, 200, 300))
                  .chunk(asked, false, DATA, piece(1050, data, 50, 100))
                  .chunk(asked, false, HOLE, Bytes.of().u64(1100).u32(100).toArray())
                  .chunk(asked, false, DATA, piece(1000, data, 0, 50))
                  .chunk(asked, true, NONE);
            });
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = open(server)) {
      ByteBuffer dirty = ByteBuffer.allocateDirect(300);
      dirty.put(Bytes.random(3, 300)).clear();
      client.read(dirty, 1000);
      assertThat(dirty.flip()).isEqualTo(ByteBuffer.wrap(data));
    }
  }

  private static byte[] piece(long offset, byte[] data, int from, int to) {
    return Bytes.of().u64(offset).raw(java.util.Arrays.copyOfRange(data, from, to)).toArray();
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aReadThatFailsPartWayFailsAlone(Replies replies) throws IOException {
    Script script =
        opened(
            replies,
            client -> {
              Asked asked = client.request();
              byte[] where = Bytes.of().u32(5).u16(3).text("bad").u64(4).toArray();
              client
                  .chunk(asked, false, DATA, piece(0, new byte[4], 0, 4))
                  .chunk(asked, false, ERROR_OFFSET, where)
                  .chunk(asked, false, ERROR, error(28, "second"))
                  .chunk(asked, false, DATA, piece(6, new byte[4], 0, 2))
                  .chunk(asked, true, NONE);
              client.chunk(
                  client.request(), true, 0xfffe, Bytes.of().u32(12).u16(1).text("!??").toArray());
              client.data(client.request(), (byte) 1);
            });
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = open(server)) {
      assertThatThrownBy(() -> read(client, 0, 8))
          .isInstanceOf(NbdException.class)
          .hasMessageContaining("failed: EIO (bad)");
      assertThatThrownBy(client::flush)
          .as("an error of a type that is not known")
          .hasMessageContaining("FLUSH failed: ENOMEM (!)");
      assertThat(read(client, 0, 1)).containsExactly(1);
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void extentsAreMergedAndEndWithTheExport(Replies replies) throws IOException {
    long[] told = {100, 0, 200, 0, 300, 3, 1, 3, 400, 2, 500, 0x10, 0xffff_ffffL, 1};
    Script script =
        opened(
            replies,
            client -> {
              for (int i = 0; i < 3; i++) {
                Asked asked = client.request();
                assertThat(asked.flags()).isEqualTo(i == 2 ? 8 : 0);
                client.chunk(asked, true, statusType(replies), status(replies, told));
              }
            });
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = open(server)) {
      assertThat(client.extents(SIZE - 2000, 1600, 100))
          .containsExactly(
              Extent.data(300),
              Extent.hole(301),
              new Extent(400, false, true),
              Extent.data(500),
              new Extent(499, true, false));
      assertThat(client.extents(SIZE - 2000, 1600, 2))
          .containsExactly(Extent.data(300), Extent.hole(301));
      assertThat(client.extents(SIZE - 50, 50, 1)).containsExactly(Extent.data(50));
    }
  }

  private static final String BITMAP = "qemu:dirty-bitmap:b";
  private static final int BITMAP_ID = 9;

  /** Opens an export with base:allocation and a bitmap. */
  private static Script openedWithBitmap(Replies replies, Script then) {
    return client -> {
      client.greet(3);
      client.agreed(replies);
      client.expectOption(ScriptedServer.EXTENDED_HEADERS);
      boolean wide = replies == Replies.EXTENDED;
      client.reply(
          ScriptedServer.EXTENDED_HEADERS, wide ? ScriptedServer.ACK : ScriptedServer.ERR_UNSUP);
      if (!wide) {
        client.expectOption(ScriptedServer.STRUCTURED_REPLY);
        client.reply(ScriptedServer.STRUCTURED_REPLY, ScriptedServer.ACK);
      }
      int set = ScriptedServer.SET_META_CONTEXT;
      client.expectOption(set);
      byte[] base = Bytes.of().u32(ScriptedServer.CONTEXT).text("base:allocation").toArray();
      byte[] bitmap = Bytes.of().u32(BITMAP_ID).text(BITMAP).toArray();
      client.reply(set, ScriptedServer.META_CONTEXT, base);
      client.reply(set, ScriptedServer.META_CONTEXT, bitmap);
      client.reply(set, ScriptedServer.ACK).expectOption(ScriptedServer.GO);
      byte[] export = Bytes.of().u16(0).u64(SIZE).u16(FLAGS).toArray();
      client.reply(ScriptedServer.GO, ScriptedServer.INFO, export);
      client.reply(ScriptedServer.GO, ScriptedServer.ACK);
      then.play(client);
      client.awaitEnd();
    };
  }

  private static NbdClient openWithBitmap(ScriptedServer server) throws IOException {
    return NbdClient.connect(
        NbdUri.parse(server.uri()), "", ClientSettings.DEFAULT, List.of("base:allocation", BITMAP));
  }

  /** Each context has its own chunk, in any order; the client keeps the one that it asked for. */
  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void extentsAreThoseOfTheContextThatIsAskedFor(Replies replies) throws IOException {
    long most = replies == Replies.EXTENDED ? -1 : 0xffff_ffffL;
    byte[] allocation = statusIn(replies, ScriptedServer.CONTEXT, 300, 3, 100, 0, SIZE, 1);
    byte[] bitmap = statusIn(replies, BITMAP_ID, 100, 1, 50, 1, 850, 0, SIZE, most);
    int type = statusType(replies);
    Script script =
        openedWithBitmap(
            replies,
            client -> {
              for (int i = 0; i < 4; i++) {
                Asked asked = client.request();
                client.chunk(asked, false, type, i % 2 == 0 ? allocation : bitmap);
                client.chunk(asked, true, type, i % 2 == 0 ? bitmap : allocation);
              }
              Asked asked = client.request();
              client.chunk(asked, false, type, allocation);
              byte[] error = Bytes.of().u32(5).u16(2).text("no").toArray();
              client.chunk(asked, true, ERROR, error);
              client.done(client.request());
            });
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = openWithBitmap(server)) {
      for (int i = 0; i < 2; i++) {
        assertThat(client.status(BITMAP, 0, 2000, 100))
            .containsExactly(
                new StatusExtent(150, 1),
                new StatusExtent(850, 0),
                new StatusExtent(SIZE - 1000, most));
        assertThat(client.extents(0, 2000, 100))
            .containsExactly(
                Extent.hole(300), Extent.data(100), new Extent(SIZE - 400, true, false));
      }
      assertThatThrownBy(() -> client.status(BITMAP, 0, 1, 1))
          .isInstanceOf(NbdException.class)
          .hasMessageContaining("EIO (no)");
      assertThatThrownBy(() -> client.status("qemu:dirty-bitmap:c", 0, 1, 1))
          .isInstanceOf(IllegalArgumentException.class);
      client.flush();
    }
  }

  /** A server's wrong use of two contexts ends the connection. */
  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aContextComesOnceAndTheOneThatIsAskedForComes(Replies replies) throws IOException {
    int[][] contexts = {
      {BITMAP_ID, BITMAP_ID},
      {ScriptedServer.CONTEXT, ScriptedServer.CONTEXT},
      {BITMAP_ID, 4},
      {ScriptedServer.CONTEXT}
    };
    for (int[] told : contexts) {
      Script script =
          openedWithBitmap(
              replies,
              client -> {
                Asked asked = client.request();
                for (int i = 0; i < told.length; i++) {
                  byte[] status = statusIn(replies, told[i], 1, 1);
                  client.chunk(asked, i == told.length - 1, statusType(replies), status);
                }
              });
      try (ScriptedServer server = ScriptedServer.of(script);
          NbdClient client = openWithBitmap(server)) {
        assertThatThrownBy(() -> client.status(BITMAP, 0, 1, 1))
            .isInstanceOf(LostException.class)
            .hasMessageContaining(told.length == 1 ? "without extents" : "the metadata context");
      }
    }
  }

  private static int statusType(Replies replies) {
    return replies == Replies.EXTENDED ? STATUS_EXT : STATUS;
  }

  private static byte[] status(Replies replies, long... lengthsAndFlags) {
    return statusIn(replies, ScriptedServer.CONTEXT, lengthsAndFlags);
  }

  private static byte[] statusIn(Replies replies, int context, long... lengthsAndFlags) {
    Bytes bytes = Bytes.of().u32(context);
    if (replies == Replies.EXTENDED) {
      bytes.u32(lengthsAndFlags.length / 2);
    }
    for (long number : lengthsAndFlags) {
      bytes = replies == Replies.EXTENDED ? bytes.u64(number) : bytes.u32(number);
    }
    return bytes.toArray();
  }

  /** A wrong answer to a request. */
  @FunctionalInterface
  interface Wrong {
    void answer(Peer client, Asked asked) throws IOException;
  }

  /** A call of a client. */
  @FunctionalInterface
  interface Call {
    void on(NbdClient client) throws IOException;
  }

  /** A call, to be answered wrongly. */
  private record Wrongly(Replies replies, Call call) {
    static Wrongly read(Replies replies) {
      return new Wrongly(replies, client -> ClientRepliesTest.read(client, 1000, 10));
    }

    static Wrongly flush(Replies replies) {
      return new Wrongly(replies, NbdClient::flush);
    }

    static Wrongly extents(Replies replies) {
      return new Wrongly(replies, client -> client.extents(0, 100, 10));
    }

    /** Makes the call, and then a flush. */
    Wrongly twice() {
      return new Wrongly(
          replies,
          client -> {
            call.on(client);
            client.flush();
          });
    }

    Arguments answered(String name, String message, Wrong wrong) {
      return argumentSet(name + ", " + replies, replies, call, message, wrong);
    }

    /** Answers by one chunk. */
    Arguments answered(String name, String message, int type, byte... content) {
      return answered(name, message, (c, a) -> c.chunk(a, true, type, content));
    }
  }

  private static byte[] at(long offset, int bytes) {
    return piece(offset, new byte[bytes], 0, bytes);
  }

  private static byte[] hole(long offset, long bytes) {
    return Bytes.of().u64(offset).u32(bytes).toArray();
  }

  static Stream<Arguments> mistakes() {
    Wrongly read = Wrongly.read(Replies.SIMPLE);
    Wrongly flush = Wrongly.flush(Replies.SIMPLE);
    Wrongly structuredRead = Wrongly.read(Replies.STRUCTURED);
    Wrongly structuredFlush = Wrongly.flush(Replies.STRUCTURED);
    Wrongly structuredExtents = Wrongly.extents(Replies.STRUCTURED);
    Wrongly wideRead = Wrongly.read(Replies.EXTENDED);
    Wrongly wideFlush = Wrongly.flush(Replies.EXTENDED);
    Wrongly wideExtents = Wrongly.extents(Replies.EXTENDED);
    byte[] wide = status(Replies.EXTENDED, 1, 1);
    byte[] narrow = status(Replies.STRUCTURED, 1, 1);
    byte[] miscounted = Bytes.of().u32(ScriptedServer.CONTEXT).u32(2).u64(1).u64(1).toArray();
    Stream<Arguments> all =
        Stream.of(
            read.answered("magic", "magic", (c, a) -> c.send(new byte[16])),
            read.answered(
                "another cookie",
                "answered a request that was not made (cookie 0x7b)",
                (c, a) -> c.simple(new Asked(0, 0, 123, 0, 0, a.payload()), 0)),
            flush
                .twice()
                .answered(
                    "an answer twice",
                    "answered a request that was not made",
                    (c, a) -> c.simple(a, 0).simple(a, 0)),
            flush.answered("a chunk among simple replies", "by a chunk", NONE),
            structuredFlush.answered(
                "an extended header among chunks",
                "extended header",
                (c, a) -> c.send(Peer.extended(a, 0, true, NONE))),
            structuredRead.answered("simply", "by a simple reply", (c, a) -> c.simple(a, 5)),
            wideFlush.answered("simply", "by a simple reply", (c, a) -> c.simple(a, 0)),
            structuredFlush.answered(
                "a simple reply after a chunk",
                "after chunks",
                (c, a) -> c.chunk(a, false, ERROR, error(5, "")).simple(a, 5)),
            structuredExtents.answered(
                "a simple reply without extents", "without extents", (c, a) -> c.simple(a, 0)),
            wideRead.answered(
                "another offset",
                "for offset 1001",
                (c, a) -> c.send(Peer.extended(a, 1001, true, DATA, at(1000, 10)))),
            structuredExtents.answered("wide extents", "form", STATUS_EXT, wide),
            wideExtents.answered("narrow extents", "form", STATUS, narrow),
            wideExtents.answered(
                "a wrong count", "by 1 extents where it announced 2", STATUS_EXT, miscounted),
            wideRead.answered(
                "a length of 2^63", "bytes", (c, a) -> c.send(dataOfTwoToThe63(a.cookie()))));
    return Stream.concat(
        all, Stream.of(Replies.STRUCTURED, Replies.EXTENDED).flatMap(ClientRepliesTest::inChunks));
  }

  private static Bytes dataOfTwoToThe63(long cookie) {
    Bytes header = Bytes.of().u32(0x6e8a278c).u16(1).u16(DATA).u64(cookie).u64(1000);
    return header.u64(Long.MIN_VALUE).u64(1000);
  }

  private static Stream<Arguments> inChunks(Replies replies) {
    Wrongly read = Wrongly.read(replies);
    Wrongly flush = Wrongly.flush(replies);
    Wrongly extents = Wrongly.extents(replies);
    int status = statusType(replies);
    byte[] one = status(replies, 1, 0);
    byte[] otherContext = one.clone();
    java.util.Arrays.fill(otherContext, 0, 4, (byte) -1);
    byte[] overrun = Bytes.of().u32(5).u16(3).text("no").toArray();
    byte[] longHole = Bytes.of().u64(1000).u64(10).toArray();
    String incomplete = "without all of the data";
    return Stream.of(
        read.answered("an unknown type", "unknown type 4", 4),
        flush.answered("an empty chunk with data", "empty chunk", NONE, (byte) 1),
        flush.answered(
            "an empty chunk in the middle", "empty chunk", (c, a) -> c.chunk(a, false, NONE)),
        flush.answered("data for a flush", "FLUSH of 0 bytes at 0 by data", DATA, at(0, 1)),
        flush.answered("a hole for a flush", "by data", HOLE, hole(0, 1)),
        read.answered("extents for a read", "extents", status, status(replies, 1, 1)),
        read.answered("no data", "data of 0 bytes", DATA, at(0, 0)),
        read.answered("half an offset", "data of -4 bytes", DATA, new byte[4]),
        read.answered("data before", "by 1 bytes at 999, which lie outside", DATA, at(999, 1)),
        read.answered("data behind the range", "outside", DATA, at(1005, 6)),
        read.answered(
            "data far away", "at 18446744073709551615, which lie outside", DATA, at(-1, 1)),
        read.answered("a long hole", "outside", HOLE, hole(1000, -1)),
        read.answered("an empty hole", "hole of no bytes", HOLE, hole(1000, 0)),
        read.answered("a hole in 16 bytes", "in 16 bytes", HOLE, longHole),
        read.answered(
            "data twice",
            "by 1 bytes at 1004, some of which it had sent before",
            (c, a) -> c.chunk(a, false, DATA, at(1000, 5)).chunk(a, false, DATA, at(1004, 1))),
        read.answered(
            "a hole over data",
            "before",
            (c, a) -> c.chunk(a, false, DATA, at(1005, 5)).chunk(a, false, HOLE, hole(1000, 6))),
        read.answered("too little data", incomplete, DATA, at(1000, 9)),
        read.answered(
            "a gap in the data",
            incomplete,
            (c, a) -> c.chunk(a, false, DATA, at(1001, 9)).chunk(a, true, NONE)),
        read.answered("nothing at all", incomplete, NONE),
        read.twice()
            .answered(
                "something after the end",
                "not made",
                (c, a) -> c.data(a, new byte[10]).chunk(a, true, NONE)),
        extents.answered("no extents", "without extents", NONE),
        extents.answered("an empty list", "by extents in", status, status(replies)),
        extents.answered("half an extent", "by extents in", status, status(replies, 1, 1, 1)),
        extents.answered(
            "an extent of no bytes", "extent of no bytes", status, status(replies, 1, 0, 0, 1)),
        extents.answered(
            "extents twice",
            "context 7",
            (c, a) -> c.chunk(a, false, status, one).chunk(a, true, status, one)),
        extents.answered("another context", "context 4294967295", status, otherContext),
        flush.answered("a short error", "by an error in 5 bytes", ERROR, new byte[5]),
        flush.answered("a long error", "by an error in 70000 bytes", ERROR, new byte[70_000]),
        flush.answered("a message that overruns", "message is longer", ERROR, overrun),
        flush.answered("the error 0", "number 0", ERROR, error(0, "fine")));
  }

  @ParameterizedTest
  @MethodSource
  void mistakes(Replies replies, Call call, String message, Wrong wrong) throws IOException {
    Script script =
        client -> {
          client.open(replies, SIZE, FLAGS);
          wrong.answer(client, client.request());
          client.awaitEnd();
        };
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = open(server)) {
      assertThatThrownBy(() -> call.on(client))
          .isInstanceOf(LostException.class)
          .hasMessageStartingWith(server.uri() + ": ")
          .hasMessageContaining(message);
      assertThatThrownBy(client::flush)
          .isInstanceOfSatisfying(
              LostException.class, lost -> assertThat(lost.error()).isEqualTo(NbdError.ESHUTDOWN))
          .hasMessageContaining(message);
    }
  }

  @ParameterizedTest
  @EnumSource
  void longRangesAreSplitOnlyWhereTheyHaveToBe(Replies replies) throws IOException {
    long size = 10L << 30;
    boolean extended = replies == Replies.EXTENDED;
    Script script =
        client -> {
          client.open(replies, size, FLAGS);
          for (int type : new int[] {4, 6, 5}) {
            int flags = type == 5 ? 0 : 1;
            if (extended) {
              client.done(expect(client, flags, type, 4096, 9L << 30));
            } else {
              long most = (4L << 30) - 4096;
              client.done(expect(client, flags, type, 4096, most));
              client.done(expect(client, flags, type, 4096 + most, most));
              client.done(expect(client, flags, type, 4096 + 2 * most, (1L << 30) + 8192));
            }
          }
          client.awaitEnd();
        };
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = open(server)) {
      client.trim(4096, 9L << 30, FUA);
      client.zero(4096, 9L << 30, FUA);
      client.cache(4096, 9L << 30);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {65_536, 65_537, 200_000})
  void longPayloadsAreSplitAsTheServerWants(int length) throws IOException {
    byte[] data = Bytes.random(5, length);
    Script script =
        client -> {
          client.agree(Replies.SIMPLE).expectOption(GO);
          client.reply(GO, INFO, ScriptedServer.export(SIZE, FLAGS));
          client.reply(GO, INFO, ScriptedServer.blockSizes(1, 4096, 65_536)).reply(GO, ACK);
          for (int type = 0; type < 2; type++) {
            for (int from = 0; from < length; from += 65_536) {
              int to = Math.min(length, from + 65_536);
              Asked asked = expect(client, type, type, 7 + from, to - from);
              byte[] part = java.util.Arrays.copyOfRange(data, from, to);
              if (type == 0) {
                client.data(asked, part);
              } else {
                assertThat(asked.payload().array()).isEqualTo(part);
                client.done(asked);
              }
            }
          }
          client.awaitEnd();
        };
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = open(server)) {
      assertThat(read(client, 7, length)).isEqualTo(data);
      ByteBuffer from = ByteBuffer.allocateDirect(length).put(data).flip();
      client.write(from, 7, FUA);
      assertThat(from.hasRemaining()).isFalse();
    }
  }

  @Test
  void aSplitWriteThatFailsSaysSoAndStops() throws IOException {
    Script script =
        client -> {
          client.open(Replies.SIMPLE, 1L << 40, FLAGS);
          client.simple(client.request(), 0).simple(client.request(), 28);
          assertThat(client.request().type()).as("goodbye, no third part").isEqualTo(2);
        };
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = open(server)) {
      assertThatThrownBy(() -> client.zero(0, 12L << 30, CommandFlags.NONE))
          .hasMessageContaining("ENOSPC");
    }
  }
}
