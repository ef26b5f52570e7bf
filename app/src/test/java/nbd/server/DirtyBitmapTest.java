package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.LongPredicate;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Backend;
import nbd.storage.Capability;
import nbd.storage.Extent;
import nbd.storage.Outcome;
import nbd.testing.BitmapBackend;
import nbd.testing.Bytes;
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

/** The metadata context of a dirty bitmap: its negotiation, and the answers to BLOCK_STATUS. */
@Timeout(300)
final class DirtyBitmapTest {
  private static final int PAGE = BitmapBackend.PAGE;
  private static final long SIZE = 20 * PAGE;
  private static final int EINVAL = RawClient.EINVAL;
  private static final int ONE = RawClient.REQ_ONE;
  private static final int BITMAP = RawClient.BITMAP;
  private static final int CONTEXT = RawClient.CONTEXT;
  private static final String ALLOCATION = "base:allocation";
  private static final String DAY = "qemu:dirty-bitmap:day";

  private static Backend storage() {
    return new BitmapBackend(new MemoryBackend(SIZE), "day");
  }

  private static RawClient hello(TestServer server, Replies replies) throws IOException {
    return server.connect().hello(3).agree(replies);
  }

  private static CheckedClient enter(TestServer server, Replies replies, String... contexts)
      throws IOException {
    RawClient raw = hello(server, replies);
    List<Integer> numbers = new ArrayList<>();
    for (String selected : raw.selectContexts("", contexts)) {
      numbers.add(Integer.valueOf(selected.substring(0, 1)));
    }
    return CheckedClient.go(raw, replies, "", numbers.toArray(Integer[]::new));
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void itIsListedByWildcardsAndSelectedByItsNameAlone(Replies replies) throws IOException {
    String both = "0 " + ALLOCATION + ", 0 " + DAY;
    try (TestServer server = TestServer.of(storage());
        RawClient client = hello(server, replies)) {
      assertThat(String.join(", ", client.listContexts(""))).isEqualTo(both);
      assertThat(client.listContexts("", "base:")).containsExactly("0 " + ALLOCATION);
      for (String query : List.of("qemu:", "qemu:dirty-bitmap:", DAY)) {
        assertThat(client.listContexts("", query)).as(query).containsExactly("0 " + DAY);
        assertThat(client.listContexts("", "x:y", query, "", query)).containsExactly("0 " + DAY);
        assertThat(String.join(", ", client.listContexts("", query, "base:"))).isEqualTo(both);
      }
      List<String> others =
          List.of(
              "qemu", "qemu:dirty-bitmap", "qemu:allocation-depth", DAY + "s", DAY + ":", "day");
      for (String query : others) {
        assertThat(client.listContexts("", query)).as(query).isEmpty();
        assertThat(client.selectContexts("", query)).as(query).isEmpty();
      }
      assertThat(client.selectContexts("")).isEmpty();
      assertThat(client.selectContexts("", "qemu:", "qemu:dirty-bitmap:", "base:")).isEmpty();
      assertThat(client.selectContexts("", DAY, DAY)).containsExactly("2 " + DAY);
      assertThat(client.selectContexts("", DAY, "qemu:", ALLOCATION, DAY))
          .containsExactly("1 " + ALLOCATION, "2 " + DAY);
      client.option(RawClient.ABORT).expectAck(RawClient.ABORT);
    }
  }

  /** A bitmap whose name looks like a wildcard is listed by wildcards, and by its whole name. */
  @Test
  void aBitmapMayHaveAnyName() throws IOException {
    for (String bitmap : List.of("a:", "a:b", "dirty-bitmap:", "Z\u00fcrich", "x".repeat(3000))) {
      String name = "qemu:dirty-bitmap:" + bitmap;
      try (TestServer server = TestServer.of(new BitmapBackend(new NullBackend(SIZE), bitmap));
          CheckedClient client = enter(server, Replies.STRUCTURED, name);
          RawClient lists = hello(server, Replies.STRUCTURED)) {
        assertThat(client.status(ONE, 0, PAGE)).containsExactly(new StatusExtent(PAGE, 1));
        assertThat(lists.listContexts("", "qemu:dirty-bitmap:a:", "qemu:dirty"))
            .hasSize(bitmap.equals("a:") ? 1 : 0);
        assertThat(lists.listContexts("", name)).containsExactly("0 " + name);
        client.disconnect();
      }
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void dirtyPagesAreToldFromAnyOffset(Replies replies) throws IOException {
    try (TestServer server = TestServer.of(storage());
        CheckedClient client = enter(server, replies, DAY)) {
      assertThat(client.has(TransmissionFlag.BLOCK_STATUS_PAYLOAD))
          .isEqualTo(replies == Replies.EXTENDED);
      assertThat(client.status(0, 10, 4 * PAGE))
          .containsExactly(
              new StatusExtent(PAGE - 10, 1),
              new StatusExtent(2 * PAGE, 0),
              new StatusExtent(PAGE, 1),
              new StatusExtent(10, 0));
      assertThat(client.status(ONE, PAGE, SIZE - PAGE))
          .containsExactly(new StatusExtent(2 * PAGE, 0));
      assertThat(client.status(ONE, 0, 7)).containsExactly(new StatusExtent(7, 1));
      long at = 0;
      for (StatusExtent extent : client.status(0, 0, SIZE)) {
        assertThat(extent.status()).isEqualTo(at / PAGE % 3 == 0 ? 1 : 0);
        at += extent.length();
      }
      assertThat(at).isEqualTo(SIZE);
      client.call(EINVAL, 0, RawClient.BLOCK_STATUS, 0, 0);
      client.call(EINVAL, 0, RawClient.BLOCK_STATUS, SIZE, 1);
      client.disconnect();
    }
  }

  /** A hole may be dirty, and data clean: neither context shows in the other. */
  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void bothContextsAreToldInOneReply(Replies replies) throws IOException {
    try (TestServer server = TestServer.of(storage());
        CheckedClient client = enter(server, replies, DAY, ALLOCATION)) {
      client.write(PAGE, new byte[PAGE]);
      Answer answer = client.call(0, 0, RawClient.BLOCK_STATUS, 0, 4 * PAGE);
      assertThat(answer.types()).hasSize(2);
      assertThat(answer.extentsByContext())
          .containsExactly(
              Map.entry(
                  CONTEXT,
                  List.of(
                      new StatusExtent(PAGE, 3),
                      new StatusExtent(PAGE, 0),
                      new StatusExtent(2 * PAGE, 3))),
              Map.entry(
                  BITMAP,
                  List.of(
                      new StatusExtent(PAGE, 1),
                      new StatusExtent(2 * PAGE, 0),
                      new StatusExtent(PAGE, 1))));
      Answer one = client.call(0, ONE, RawClient.BLOCK_STATUS, PAGE, 4 * PAGE);
      assertThat(one.extentsByContext())
          .containsExactly(
              Map.entry(CONTEXT, List.of(new StatusExtent(PAGE, 0))),
              Map.entry(BITMAP, List.of(new StatusExtent(2 * PAGE, 0))));
      client.disconnect();
    }
  }

  @Test
  void aPayloadNamesAnyOfTheSelectedContextsOnce() throws IOException {
    try (TestServer server = TestServer.of(storage());
        CheckedClient client = enter(server, Replies.EXTENDED, ALLOCATION, DAY)) {
      StatusExtent dirty = new StatusExtent(PAGE, 1);
      StatusExtent hole = new StatusExtent(PAGE, 3);
      assertThat(client.filteredStatus(ONE, 0, PAGE, BITMAP).extents()).containsExactly(dirty);
      assertThat(client.filteredStatus(ONE, 0, PAGE, CONTEXT).extents()).containsExactly(hole);
      for (int[] named : new int[][] {{CONTEXT, BITMAP}, {BITMAP, CONTEXT}}) {
        assertThat(client.filteredStatus(ONE, 0, PAGE, named).extentsByContext())
            .containsExactly(Map.entry(CONTEXT, List.of(hole)), Map.entry(BITMAP, List.of(dirty)));
      }
      int[][] wrong = {{}, {0}, {3}, {-1}, {2, 2}, {1, 3}, {2, 0}, {1, 2, 1}, {1, 2, 3}};
      for (int[] named : wrong) {
        assertThat(client.filteredStatus(0, 0, PAGE, named).error())
            .as(Arrays.toString(named))
            .isEqualTo(EINVAL);
      }
      for (int length : new int[] {0, 4, 8, 9, 11, 13, 15, 17, 19, 20, 4096}) {
        byte[] payload = Arrays.copyOf(Bytes.of().u64(PAGE).u32(1).u32(2).toArray(), length);
        int type = RawClient.BLOCK_STATUS;
        client.call(EINVAL, RawClient.PAYLOAD_LEN, type, 0, length, payload);
      }
      assertThat(client.filteredStatus(0, 0, -1, BITMAP).error()).isEqualTo(EINVAL);
      assertThat(client.filteredStatus(0, 0, 0, BITMAP).error()).isEqualTo(EINVAL);
      client.disconnect();
    }
    try (TestServer server = TestServer.of(storage());
        CheckedClient client = enter(server, Replies.EXTENDED, DAY)) {
      assertThat(client.filteredStatus(0, 0, PAGE, BITMAP).extents()).isNotEmpty();
      assertThat(client.filteredStatus(0, 0, PAGE, CONTEXT).error()).isEqualTo(EINVAL);
      assertThat(client.filteredStatus(0, 0, PAGE, CONTEXT, BITMAP).error()).isEqualTo(EINVAL);
      client.disconnect();
    }
  }

  // Several exports.

  /** An export of any name; each has a bitmap named after it, but "plain" has none. */
  private static TestServer.Options several() {
    return TestServer.with(
            new BitmapBackend(
                new MemoryBackend(SIZE), name -> name.equals("plain") ? "" : "of-" + name))
        .names("a", "b", "plain");
  }

  private static String of(String export) {
    return "qemu:dirty-bitmap:of-" + export;
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aSelectionIsForItsExportAndEndsWithTheNext(Replies replies) throws IOException {
    byte[] overrun = Bytes.of().u32(1).text("a").u32(1).u32(99).toArray();
    try (TestServer server = several().start()) {
      for (int i = 0; i < 7; i++) {
        RawClient raw = hello(server, replies);
        assertThat(raw.selectContexts("a", of("a"))).containsExactly("2 " + of("a"));
        switch (i) {
          case 0, 1 -> assertThat(raw.listContexts("b")).hasSize(2);
          case 2 -> assertThat(raw.selectContexts("a", ALLOCATION)).hasSize(1);
          case 3 -> assertThat(raw.selectContexts("a", of("b"), "qemu:")).isEmpty();
          case 4 -> assertThat(raw.selectContexts("b", of("b"))).hasSize(1);
          case 5 ->
              raw.option(RawClient.SET_META_CONTEXT, overrun)
                  .expectError(RawClient.SET_META_CONTEXT, RawClient.ERR_INVALID);
          default ->
              raw.option(RawClient.SET_META_CONTEXT, RawClient.contextData("nobody", of("a")))
                  .expectError(RawClient.SET_META_CONTEXT, RawClient.ERR_UNKNOWN);
        }
        int context = i == 2 ? CONTEXT : BITMAP;
        CheckedClient client = CheckedClient.go(raw, replies, i == 1 ? "b" : "a", context);
        boolean keeps = i == 0 || i == 2;
        client.call(keeps ? 0 : EINVAL, 0, RawClient.BLOCK_STATUS, 0, 512);
        client.disconnect();
      }
    }
  }

  @Test
  void aBitmapOfTheSameNameIsAnotherExportsOwn() throws IOException {
    try (TestServer server = TestServer.with(storage()).names("a", "b").start()) {
      RawClient raw = hello(server, Replies.EXTENDED);
      assertThat(raw.selectContexts("a", DAY)).containsExactly("2 " + DAY);
      CheckedClient client = CheckedClient.go(raw, Replies.EXTENDED, "b", BITMAP);
      assertThat(client.has(TransmissionFlag.BLOCK_STATUS_PAYLOAD)).isFalse();
      client.call(EINVAL, 0, RawClient.BLOCK_STATUS, 0, 512);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void eachExportHasItsOwnBitmapOrNone(Replies replies) throws IOException {
    try (TestServer server = several().start();
        RawClient raw = hello(server, replies)) {
      for (String name : List.of("a", "b", "a")) {
        assertThat(raw.listContexts(name, "qemu:")).containsExactly("0 " + of(name));
        assertThat(raw.selectContexts(name, of("a"), of("b"))).containsExactly("2 " + of(name));
      }
      assertThat(raw.listContexts("plain")).containsExactly("0 " + ALLOCATION);
      assertThat(raw.listContexts("plain", "qemu:")).isEmpty();
      assertThat(raw.selectContexts("plain", of("plain"), of("a"), ALLOCATION))
          .containsExactly("1 " + ALLOCATION);
      CheckedClient client = CheckedClient.go(raw, replies, "plain");
      assertThat(client.status(0, 0, SIZE)).containsExactly(new StatusExtent(SIZE, 3));
      client.disconnect();
    }
  }

  /** The handle that was opened for the bitmap's name is the one that is served. */
  @Test
  void theStorageIsOpenedOnceAndOnlyForItsBitmap() throws Exception {
    try (TestServer server = several().start()) {
      int before = server.contract().openedHandles();
      try (RawClient raw = hello(server, Replies.EXTENDED)) {
        assertThat(raw.listContexts("a", "base:", "x:y", "qemu", "qemu:other")).hasSize(1);
        assertThat(raw.selectContexts("a", ALLOCATION, "qemu:", "qemu:dirty-bitmap")).hasSize(1);
        assertThat(server.contract().openedHandles()).isEqualTo(before);
        raw.listContexts("a");
        raw.selectContexts("a", of("a"));
        CheckedClient.go(raw, Replies.EXTENDED, "a", BITMAP).disconnect();
      }
      assertThat(server.contract().openedHandles()).isEqualTo(before + 1);
      try (RawClient raw = hello(server, Replies.EXTENDED)) {
        raw.listContexts("a");
        raw.listContexts("b");
        assertThat(server.contract().openHandles()).as("with the witness").isEqualTo(2);
      }
      server.awaitHandles(1);
    }
  }

  @Test
  void anExportThatCannotBeOpenedIsRefusedAsByInfo() throws IOException {
    try (TestServer server = TestServer.with(new FailingExport()).names("good", "bad").start()) {
      RawClient client = hello(server, Replies.STRUCTURED);
      client.selectContexts("good", ALLOCATION);
      for (int option : new int[] {RawClient.LIST_META_CONTEXT, RawClient.SET_META_CONTEXT}) {
        client.option(option, RawClient.contextData("bad", DAY));
        client.expectError(option, RawClient.ERR_UNKNOWN);
      }
      client.option(RawClient.OPT_INFO, RawClient.infoData("bad"));
      client.expectError(RawClient.OPT_INFO, RawClient.ERR_UNKNOWN);
      assertThat(client.listContexts("bad", "base:")).hasSize(1);
      CheckedClient left = CheckedClient.go(client, Replies.STRUCTURED, "good");
      left.call(EINVAL, 0, RawClient.BLOCK_STATUS, 0, 512);
      left.disconnect();
    }
  }

  private static final class FailingExport extends nbd.filter.FilterBackend {
    FailingExport() {
      super(storage());
    }

    @Override
    protected nbd.storage.Handle wrap(nbd.storage.Handle handle, String exportName)
        throws IOException {
      if (exportName.equals("bad")) {
        throw new IOException("the disk is gone");
      }
      return handle;
    }
  }

  /** Storage that is opened anew for GO may have another bitmap than the selected one. */
  @Test
  void aBitmapThatHasGoneBeforeTheExportIsServedIsNotAskedFor() throws IOException {
    AtomicInteger days = new AtomicInteger();
    Backend changing =
        new BitmapBackend(
            new MemoryBackend(SIZE),
            name -> name.equals("a") ? "day-" + days.incrementAndGet() : "");
    try (TestServer server = TestServer.with(changing).names("b", "a").start()) {
      RawClient raw = hello(server, Replies.EXTENDED);
      assertThat(raw.selectContexts("a", "qemu:dirty-bitmap:day-1", ALLOCATION)).hasSize(2);
      raw.listContexts("b");
      CheckedClient client = CheckedClient.go(raw, Replies.EXTENDED, "a");
      assertThat(client.status(0, 0, SIZE)).containsExactly(new StatusExtent(SIZE, 3));
      client.disconnect();
    }
  }

  // Storage that fails or knows much.

  /** Storage in which both contexts fail where a test says. */
  private static Backend failing(LongPredicate allocation, LongPredicate bitmap) {
    return new HookedBackend(
        new MemoryBackend(SIZE),
        facts -> facts.withDirtyBitmap("day"),
        (next, operation, patience, end) -> {
          boolean dirty = operation.asksForDirty();
          if ((dirty ? bitmap : allocation).test(operation.offset())) {
            throw new NbdException(NbdError.EIO, dirty ? "no bitmap" : "no map");
          }
          if (!dirty) {
            return next.perform(operation, patience, end);
          }
          operation.answer(List.of(Extent.clean(operation.length())));
          return Outcome.DONE;
        });
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aFailureInOneContextIsTheWholeAnswer(Replies replies) throws IOException {
    Backend storage = failing(offset -> offset == PAGE, offset -> offset == 2 * PAGE);
    try (TestServer server = TestServer.of(storage);
        CheckedClient client = enter(server, replies, ALLOCATION, DAY)) {
      server.expectErrors();
      for (int page = 1; page <= 2; page++) {
        int type = RawClient.BLOCK_STATUS;
        Answer answer = client.call(RawClient.EIO, 0, type, (long) page * PAGE, PAGE);
        assertThat(answer.types()).containsExactly(0x8001);
        assertThat(answer.message()).isEqualTo(page == 1 ? "no map" : "no bitmap");
      }
      assertThat(client.call(0, 0, RawClient.BLOCK_STATUS, 0, PAGE).types()).hasSize(2);
      client.disconnect();
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aFragmentedImageIsToldInBoundedReplies(Replies replies) throws IOException {
    long size = 1L << 30;
    Backend fragmented =
        new HookedBackend(
            new NullBackend(size),
            facts ->
                facts.with(facts.capabilities().with(Capability.EXTENTS)).withDirtyBitmap("day"),
            (next, operation, patience, end) -> {
              List<Extent> all = new ArrayList<>();
              long at = operation.offset();
              for (; all.size() < operation.most(); at += 4096) {
                boolean odd = at / 4096 % 2 != 0;
                all.add(
                    operation.asksForDirty()
                        ? new Extent(4096, false, false, odd)
                        : new Extent(4096, odd, odd));
              }
              operation.answer(all);
              return Outcome.DONE;
            });
    try (TestServer server = TestServer.of(fragmented);
        CheckedClient client = enter(server, replies, ALLOCATION, DAY)) {
      Answer answer = client.call(0, 0, RawClient.BLOCK_STATUS, 4096, size / 2);
      assertThat(client.bytesTaken()).isLessThan(140_000);
      answer
          .extentsByContext()
          .forEach(
              (context, extents) -> {
                assertThat(extents).hasSizeGreaterThan(1000);
                assertThat(extents.getFirst())
                    .isEqualTo(new StatusExtent(4096, context == BITMAP ? 1 : 3));
              });
      client.disconnect();
    }
  }

  /** A client that asks for much is answered, and nothing is opened for what cannot match. */
  @Test
  void tenThousandQueriesAreAnswered() throws IOException {
    String[] queries = new String[10_000];
    Random random = new Random(1);
    Arrays.setAll(queries, i -> "q" + (random.nextInt(1 << 20) + 100_000));
    try (TestServer server = TestServer.of(storage())) {
      int before = server.contract().openedHandles();
      RawClient raw = hello(server, Replies.STRUCTURED);
      assertThat(raw.selectContexts("", queries)).isEmpty();
      assertThat(raw.listContexts("", queries)).isEmpty();
      assertThat(server.contract().openedHandles()).isEqualTo(before);
      String[] fewer = Arrays.copyOf(queries, 4000);
      Arrays.fill(fewer, DAY);
      assertThat(raw.selectContexts("", fewer)).containsExactly("2 " + DAY);
      CheckedClient client = CheckedClient.go(raw, Replies.STRUCTURED, "", BITMAP);
      assertThat(client.status(ONE, 0, 1)).containsExactly(new StatusExtent(1, 1));
      client.disconnect();
    }
  }

  /** A storage without the capability for extents has a bitmap all the same. */
  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void storageThatKnowsNoHolesMayKnowWhatChanged(Replies replies) throws IOException {
    try (TestServer server = TestServer.of(new BitmapBackend(new NullBackend(SIZE), "day"));
        CheckedClient client = enter(server, replies, ALLOCATION, DAY)) {
      assertThat(client.call(0, 0, RawClient.BLOCK_STATUS, 0, 2 * PAGE).extentsByContext())
          .containsExactly(
              Map.entry(CONTEXT, List.of(new StatusExtent(2 * PAGE, 0))),
              Map.entry(BITMAP, List.of(new StatusExtent(PAGE, 1), new StatusExtent(PAGE, 0))));
      client.disconnect();
    }
  }
}
