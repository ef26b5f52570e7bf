package nbd.client;

import static java.nio.charset.StandardCharsets.UTF_8;
import static nbd.testing.ScriptedServer.ABORT;
import static nbd.testing.ScriptedServer.ACK;
import static nbd.testing.ScriptedServer.CONTEXT;
import static nbd.testing.ScriptedServer.ERR_POLICY;
import static nbd.testing.ScriptedServer.ERR_TLS_REQD;
import static nbd.testing.ScriptedServer.ERR_UNKNOWN;
import static nbd.testing.ScriptedServer.ERR_UNSUP;
import static nbd.testing.ScriptedServer.EXPORT_NAME;
import static nbd.testing.ScriptedServer.EXTENDED_HEADERS;
import static nbd.testing.ScriptedServer.GO;
import static nbd.testing.ScriptedServer.INFO;
import static nbd.testing.ScriptedServer.LIST;
import static nbd.testing.ScriptedServer.LIST_META_CONTEXT;
import static nbd.testing.ScriptedServer.META_CONTEXT;
import static nbd.testing.ScriptedServer.SERVER;
import static nbd.testing.ScriptedServer.SET_META_CONTEXT;
import static nbd.testing.ScriptedServer.STARTTLS;
import static nbd.testing.ScriptedServer.STRUCTURED_REPLY;
import static nbd.testing.ScriptedServer.blockSizes;
import static nbd.testing.ScriptedServer.context;
import static nbd.testing.ScriptedServer.export;
import static nbd.testing.ScriptedServer.listed;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.params.provider.Arguments.argumentSet;

import java.io.IOException;
import java.net.ConnectException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Stream;
import nbd.protocol.BlockSizes;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReplyType;
import nbd.protocol.ProtocolException;
import nbd.protocol.TransmissionFlag;
import nbd.storage.ListedExport;
import nbd.testing.Bytes;
import nbd.testing.ScriptedServer;
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

/** The handshake with servers that agree, refuse, lack something or break the protocol. */
@Timeout(300)
final class ClientHandshakeTest {
  private static final byte[] GO_DATA =
      Bytes.of().u32(4).text("disk").u16(3).u16(1).u16(2).u16(3).toArray();

  private static NbdClient open(ScriptedServer server) throws IOException {
    return NbdClient.connect(NbdUri.parse(server.uri()), "disk", ClientSettings.DEFAULT);
  }

  private static String uri(ScriptedServer server) {
    return NbdUri.parse(server.uri("disk")).toString();
  }

  @ParameterizedTest
  @EnumSource
  void theExportIsAsTheServerDescribesIt(Replies replies) throws IOException {
    Script script =
        client -> {
          client.agree(replies);
          assertThat(client.expectOption(GO)).isEqualTo(GO_DATA);
          client
              .reply(GO, INFO, Bytes.of().u16(1).text("canonical").toArray())
              .reply(GO, INFO, Bytes.of().u16(2).text("a\ndisk").toArray())
              .reply(GO, INFO, Bytes.of().u16(0x1234).text("whatever").toArray())
              .reply(GO, INFO, blockSizes(512, 65_536, 0xffff_ffffL))
              .reply(GO, INFO, export(1L << 40, 0x8105))
              .reply(GO, ACK);
          assertThat(client.request().type()).as("goodbye").isEqualTo(2);
        };
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = open(server)) {
      ExportInfo export = client.export();
      assertThat(export.name()).isEqualTo("disk");
      assertThat(export.canonicalName()).contains("canonical");
      assertThat(export.description()).isEqualTo("a disk");
      assertThat(export.size()).isEqualTo(1L << 40);
      assertThat(export.flags())
          .isEqualTo(
              Set.of(
                  TransmissionFlag.HAS_FLAGS,
                  TransmissionFlag.SEND_FLUSH,
                  TransmissionFlag.CAN_MULTI_CONN));
      assertThat(export.blockSizes()).isEqualTo(new BlockSizes(512, 65_536, 32 << 20));
      assertThat(export.serverBlockSizes())
          .contains(new ServerBlockSizes(512, 65_536, 0xffff_ffffL));
      assertThat(export.structuredReplies()).isEqualTo(replies != Replies.SIMPLE);
      assertThat(export.extendedHeaders()).isEqualTo(replies == Replies.EXTENDED);
      assertThat(export.contexts())
          .isEqualTo(replies == Replies.SIMPLE ? Map.of() : Map.of("base:allocation", CONTEXT));
    }
  }

  @Test
  void aServerThatSendsNoBlockSizesHasTheUsualOnes() throws IOException {
    try (ScriptedServer server =
            ScriptedServer.of(client -> client.open(Replies.SIMPLE, 0, 1).awaitEnd());
        NbdClient client = open(server)) {
      assertThat(client.export().blockSizes()).isEqualTo(BlockSizes.DEFAULT);
      assertThat(client.export().serverBlockSizes()).isEmpty();
      assertThat(client.export().canonicalName()).isEqualTo(Optional.empty());
    }
  }

  @Test
  void aMaximumBelowOneMebibyteIsTheClientsOwnConcern() throws IOException {
    Script script =
        client -> {
          client.agree(Replies.SIMPLE).expectOption(GO);
          client.reply(GO, INFO, blockSizes(1, 1, 65_536)).reply(GO, INFO, export(1, 1));
          client.reply(GO, ACK).awaitEnd();
        };
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = open(server)) {
      assertThat(client.export().blockSizes()).isEqualTo(new BlockSizes(1, 512, 1 << 20));
      assertThat(client.export().longestPayload()).isEqualTo(65_536);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 2, 3, 0xfffc})
  void anOldServerIsAskedForTheExportByName(int greeting) throws IOException {
    boolean fixed = (greeting & 1) != 0;
    Script script =
        client -> {
          assertThat(client.greet(greeting)).isEqualTo(greeting & 3);
          if (fixed) {
            for (int option : new int[] {EXTENDED_HEADERS, STRUCTURED_REPLY, GO}) {
              client.expectOption(option);
              client.reply(option, ERR_UNSUP);
            }
          }
          assertThat(new String(client.expectOption(EXPORT_NAME), UTF_8)).isEqualTo("disk");
          client.send(Bytes.of().u64(77).u16(3));
          if ((greeting & 2) == 0) {
            client.send(new byte[124]);
          }
          client.simple(client.request(), 0, (byte) 42).awaitEnd();
        };
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = open(server)) {
      assertThat(client.export().size()).isEqualTo(77);
      assertThat(client.export().has(TransmissionFlag.READ_ONLY)).isTrue();
      assertThat(client.export().fixedNewstyle()).isEqualTo(fixed);
      ByteBuffer one = ByteBuffer.allocate(1);
      client.read(one, 0);
      assertThat(one.get(0)).isEqualTo((byte) 42);
    }
  }

  @Test
  void flagsWithoutHasFlagsAreIgnored() throws IOException {
    try (ScriptedServer server =
            ScriptedServer.of(client -> client.open(Replies.SIMPLE, 1, 0x104).awaitEnd());
        NbdClient client = open(server)) {
      assertThat(client.export().flags()).isEmpty();
    }
  }

  @Test
  void aRefusedContextLeavesOnlyTheExtentsUnknown() throws IOException {
    Script script =
        client -> {
          client.greet(3);
          client.expectOption(EXTENDED_HEADERS);
          client.reply(EXTENDED_HEADERS, ERR_POLICY);
          client.expectOption(STRUCTURED_REPLY);
          client.reply(STRUCTURED_REPLY, ACK);
          assertThat(client.expectOption(SET_META_CONTEXT))
              .isEqualTo(
                  Bytes.of().u32(4).text("disk").u32(1).u32(15).text("base:allocation").toArray());
          client.refuse(SET_META_CONTEXT, ERR_UNSUP, "no").expectOption(GO);
          client.reply(GO, INFO, export(1, 1)).reply(GO, ACK).awaitEnd();
        };
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client = open(server)) {
      assertThat(client.export().structuredReplies()).isTrue();
      assertThat(client.export().tellsExtents()).isFalse();
      assertThat(client.extents(0, 1, 1)).containsExactly(nbd.storage.Extent.data(1));
    }
  }

  @Test
  void otherContextsAreSelectedTogether() throws IOException {
    String bitmap = "qemu:dirty-bitmap:ä";
    Bytes queries = Bytes.of().u32(4).text("disk").u32(3).u32(15).text("base:allocation");
    queries.u32(20).text(bitmap).u32(6).text("x:none");
    Script script =
        client -> {
          client.greet(3);
          client.expectOption(EXTENDED_HEADERS);
          client.reply(EXTENDED_HEADERS, ACK);
          assertThat(client.expectOption(SET_META_CONTEXT)).isEqualTo(queries.toArray());
          client.reply(SET_META_CONTEXT, META_CONTEXT, context(-2, bitmap));
          client.reply(SET_META_CONTEXT, META_CONTEXT, context(0, "base:allocation"));
          client.reply(SET_META_CONTEXT, ACK).expectOption(GO);
          client.reply(GO, INFO, export(1, 1)).reply(GO, ACK).awaitEnd();
        };
    List<String> wanted = List.of("base:allocation", bitmap, "x:none");
    try (ScriptedServer server = ScriptedServer.of(script);
        NbdClient client =
            NbdClient.connect(NbdUri.parse(server.uri()), "disk", ClientSettings.DEFAULT, wanted)) {
      assertThat(client.export().contexts()).isEqualTo(Map.of(bitmap, -2, "base:allocation", 0));
    }
  }

  /** A point of the handshake, at which the client has sent an option. */
  private enum Point {
    GREETING(0),
    SECURING(STARTTLS),
    LISTING(LIST),
    FIRST(EXTENDED_HEADERS),
    CONTEXTS(SET_META_CONTEXT),
    OPENING(GO);

    private final int option;

    Point(int option) {
      this.option = option;
    }

    /** Plays the handshake up to here, and then a script. */
    Script then(Script script) {
      return client -> {
        if (this == OPENING) {
          client.agree(Replies.STRUCTURED);
        } else if (this != GREETING) {
          client.greet(3);
        }
        if (this == CONTEXTS) {
          client.expectOption(EXTENDED_HEADERS);
          client.reply(EXTENDED_HEADERS, ACK);
        }
        if (this != GREETING) {
          client.expectOption(option);
        }
        script.play(client);
      };
    }

    Arguments says(String name, String message, Script script) {
      return argumentSet(name, then(script), message);
    }

    Arguments replies(String name, String message, int type, byte... data) {
      return says(name, message, client -> client.reply(option, type, data));
    }

    Arguments refuses(int error, String text, OptionReplyType type, String message) {
      Script script = then(client -> client.refuse(option, error, text));
      return argumentSet("%s, %s".formatted(this, type), script, type, message);
    }
  }

  static Stream<Arguments> refusals() {
    return Stream.of(
        Point.OPENING.refuses(
            ERR_UNKNOWN,
            "no\nsuch\0disk",
            OptionReplyType.ERR_UNKNOWN,
            "export \"disk\" is refused: ERR_UNKNOWN: no such disk"),
        Point.OPENING.refuses(
            ERR_POLICY, "", OptionReplyType.ERR_POLICY, "export \"disk\" is refused: ERR_POLICY"),
        Point.OPENING.refuses(
            0x80000008, "ask", OptionReplyType.ERR_BLOCK_SIZE_REQD, "ERR_BLOCK_SIZE_REQD: ask"),
        Point.OPENING.refuses(0x80000007, "", OptionReplyType.ERR_SHUTDOWN, "shutting down"),
        Point.OPENING.refuses(
            0x80001234, "from the future", OptionReplyType.ERR_INVALID, "from the future"),
        Point.FIRST.refuses(ERR_TLS_REQD, "", OptionReplyType.ERR_TLS_REQD, "use nbds://"),
        Point.CONTEXTS.refuses(ERR_TLS_REQD, "", OptionReplyType.ERR_TLS_REQD, "use nbds://"),
        Point.OPENING.refuses(
            ERR_TLS_REQD, "first TLS", OptionReplyType.ERR_TLS_REQD, "first TLS (use nbds://"));
  }

  private static Script waiting(Script script) {
    return client -> {
      script.play(client);
      client.awaitEnd();
    };
  }

  @ParameterizedTest
  @MethodSource
  void refusals(Script script, OptionReplyType type, String message) throws IOException {
    try (ScriptedServer server = ScriptedServer.of(waiting(script))) {
      assertThatThrownBy(() -> open(server))
          .isInstanceOfSatisfying(
              OptionException.class, refused -> assertThat(refused.type()).isEqualTo(type))
          .hasMessageStartingWith(uri(server) + ": ")
          .hasMessageContaining(message);
    }
  }

  static Stream<Arguments> mistakes() {
    Point greeting = Point.GREETING;
    Point first = Point.FIRST;
    Point contexts = Point.CONTEXTS;
    Point opening = Point.OPENING;
    byte[] allocation = context(1, "base:allocation");
    Bytes magic = Bytes.of().text("NBDMAGIC");
    byte[] oldstyle = magic.u64(0x420281861253L).u64(0).u64(0).toArray();
    byte[] otherMagic = Bytes.of().u64(0x1234).u32(0).u32(0).u32(0).toArray();
    Bytes header = Bytes.of().u64(0x0003e889045565a9L).u32(EXTENDED_HEADERS).u32(ERR_UNSUP);
    byte[] huge = header.u32(0xffff_ffffL).toArray();
    byte[] sizes = blockSizes(1, 512, 1 << 20);
    byte[] shortSize = Bytes.of().u16(0).u64(1).toArray();
    byte[] longSizes = Bytes.of().u16(3).u64(1).u64(1).toArray();
    return Stream.of(
        greeting.says(
            "no NBD at all",
            "this is no NBD server",
            c -> c.send(Bytes.of().text("HTTP/1.1 200 OK\r\n\r\n.."))),
        greeting.says("oldstyle", "oldstyle", c -> c.send(oldstyle)),
        greeting.says(
            "another style",
            "0x4e42444d41474943",
            c -> c.send(Bytes.of().text("NBDMAGICNBDMAGIC").u16(3))),
        first.says("the reply's magic", "magic", c -> c.send(otherMagic)),
        first.says(
            "another option's reply",
            "answered option 7 where EXTENDED_HEADERS was sent",
            c -> c.reply(GO, ACK)),
        first.says("a reply of 4 GiB", "4294967295 bytes", c -> c.send(huge)),
        first.replies("an unknown reply", "unknown type 99", 99),
        first.replies("INFO for an option without", "EXTENDED_HEADERS by INFO", INFO),
        first.replies("ACK with data", "ACK of EXTENDED_HEADERS has data", ACK, (byte) 1),
        contexts.replies(
            "a context that was not asked for", "\"qemu:x\"", META_CONTEXT, context(1, "qemu:x")),
        contexts.says(
            "a context twice",
            "base:allocation",
            c ->
                c.reply(SET_META_CONTEXT, META_CONTEXT, allocation)
                    .reply(SET_META_CONTEXT, META_CONTEXT, allocation)),
        contexts.replies("a context without a name", "no name", META_CONTEXT, context(1, "")),
        contexts.replies("a context for INFO", "by INFO", INFO),
        opening.says(
            "no size",
            "did not send the export's size",
            c -> c.reply(GO, INFO, sizes).reply(GO, ACK)),
        opening.says(
            "two sizes",
            "twice",
            c -> c.reply(GO, INFO, export(1, 1)).reply(GO, INFO, export(1, 1))),
        opening.replies("a negative size", "negative or huge", INFO, export(-1, 1)),
        opening.replies("an empty piece", "too short", INFO, (byte) 0),
        opening.replies("a short size", "EXPORT has 8 bytes", INFO, shortSize),
        opening.replies("long block sizes", "BLOCK_SIZE has 16 bytes", INFO, longSizes),
        sizes("block sizes 0, 512", 0, 512, 1 << 20),
        sizes("block sizes 3", 3, 512, 3 << 20),
        sizes("block sizes 131072", 1 << 17, 1 << 17, 1 << 20),
        sizes("block sizes 1, 0", 1, 0, 1 << 20),
        sizes("block sizes 1, 1000", 1, 1000, 1 << 20),
        sizes("block sizes 4096, 512", 4096, 512, 1 << 20),
        sizes("and 0 are not valid", 1, 512, 0),
        sizes("and 1048577 are not valid", 512, 512, (1 << 20) + 1),
        opening.replies("a context for GO", "META_CONTEXT", META_CONTEXT, context(1, "x")));
  }

  private static Arguments sizes(String message, long minimum, long preferred, long maximum) {
    return Point.OPENING.replies(message, message, INFO, blockSizes(minimum, preferred, maximum));
  }

  @ParameterizedTest
  @MethodSource
  void mistakes(Script script, String message) throws IOException {
    try (ScriptedServer server = ScriptedServer.of(waiting(script))) {
      assertThatThrownBy(() -> open(server))
          .isInstanceOf(ProtocolException.class)
          .hasMessageStartingWith(uri(server) + ": ")
          .hasMessageContaining(message);
    }
  }

  static Stream<Arguments> ends() {
    return Stream.of(
        argumentSet("at once", (Script) c -> {}),
        argumentSet("in the greeting", (Script) c -> c.send(Bytes.of().text("NBDMAGICIHAVE"))),
        argumentSet("after the greeting", (Script) c -> c.greet(3)),
        argumentSet("before an answer", Point.FIRST.then(c -> {})),
        argumentSet(
            "in a reply's header", Point.FIRST.then(c -> c.send(Bytes.of().u64(0x3e889045565a9L)))),
        argumentSet(
            "in a reply's data",
            Point.OPENING.then(
                c -> c.send(Bytes.of().u64(0x3e889045565a9L).u32(GO).u32(INFO).u32(12).u64(0)))),
        argumentSet("between replies", Point.OPENING.then(c -> c.reply(GO, INFO, export(1, 1)))));
  }

  @ParameterizedTest
  @MethodSource
  void ends(Script script) throws IOException {
    try (ScriptedServer server = ScriptedServer.of(script)) {
      assertThatThrownBy(() -> open(server))
          .isInstanceOf(IOException.class)
          .isNotInstanceOf(ProtocolException.class)
          .hasMessageStartingWith(uri(server) + ": ");
    }
  }

  @Test
  void aServerThatDisconnectsInsteadOfOpeningPerhapsLacksTheExport() throws IOException {
    Script script =
        client -> {
          client.greet(2);
          client.expectOption(EXPORT_NAME);
        };
    try (ScriptedServer server = ScriptedServer.of(script)) {
      assertThatThrownBy(() -> open(server))
          .hasMessageContaining("instead of opening export \"disk\"");
    }
  }

  @Test
  void aSilentServerIsGivenUp() throws IOException {
    ClientSettings hasty = new ClientSettings(Duration.ofSeconds(3), Duration.ZERO);
    Script[] silent = {
      Peer::awaitEnd, Point.FIRST.then(Peer::awaitEnd), Point.OPENING.then(Peer::awaitEnd)
    };
    try (ScriptedServer server = ScriptedServer.of(silent)) {
      for (int i = 0; i < silent.length; i++) {
        assertThatThrownBy(() -> NbdClient.connect(NbdUri.parse(server.uri()), "disk", hasty))
            .hasMessage(uri(server) + ": the server did not complete the handshake within 3 s");
      }
    }
  }

  @Test
  void aServerThatIsNotThereIsNamed() {
    NbdUri uri = NbdUri.parse("nbd+unix:///x?socket=/no/such/socket");
    assertThatThrownBy(() -> NbdClient.connect(uri, "x", ClientSettings.DEFAULT))
        .isInstanceOf(IOException.class)
        .hasMessageStartingWith(uri + ": cannot connect: ");
    NbdUri port = NbdUri.parse("nbd://localhost:1/");
    assertThatThrownBy(() -> NbdClient.connect(port, "", ClientSettings.DEFAULT))
        .hasMessageStartingWith(port + ": cannot connect: ")
        .hasRootCauseInstanceOf(ConnectException.class);
    NbdUri host = NbdUri.parse("nbd://no-such-host.invalid/");
    assertThatThrownBy(() -> NbdClient.list(host, ClientSettings.DEFAULT))
        .hasMessageContaining("the host \"no-such-host.invalid\" is not known");
  }

  @Test
  void exportsAreListed() throws IOException {
    Script script =
        client -> {
          client.greet(3);
          assertThat(client.expectOption(LIST)).isEmpty();
          client
              .reply(LIST, SERVER, listed("", ""))
              .reply(LIST, SERVER, listed("a", "the\tfirst"))
              .reply(LIST, ACK);
          client.expectOption(ABORT);
        };
    try (ScriptedServer server = ScriptedServer.of(script)) {
      assertThat(NbdClient.list(NbdUri.parse(server.uri()), ClientSettings.DEFAULT))
          .isEqualTo(List.of(new ListedExport("", ""), new ListedExport("a", "the first")));
    }
  }

  static Stream<Arguments> listings() {
    Class<?> refused = OptionException.class;
    Class<?> wrong = ProtocolException.class;
    byte[] overrun = Bytes.of().u32(9).text("a").toArray();
    byte[] huge = Bytes.of().u32(-1).text("a").toArray();
    String tooLong = "longer than the reply";
    return Stream.of(
        listing("unknown", refused, "UNSUP", ERR_UNSUP),
        argumentSet(
            "refused",
            Point.LISTING.then(
                c -> c.reply(LIST, SERVER, listed("a", "")).refuse(LIST, ERR_POLICY, "secret")),
            refused,
            "the list of exports is refused: ERR_POLICY: secret"),
        listing("a long name", wrong, tooLong, SERVER, overrun),
        listing("a name of 4 GiB", wrong, tooLong, SERVER, huge),
        listing("no name", wrong, tooLong, SERVER, (byte) 0),
        listing("a name that is no name", wrong, "NUL", SERVER, listed("a\0b", "")),
        argumentSet("not fixed", (Script) c -> c.greet(2), IOException.class, "cannot list"));
  }

  private static Arguments listing(
      String name, Class<?> type, String message, int reply, byte... data) {
    return argumentSet(name, Point.LISTING.then(c -> c.reply(LIST, reply, data)), type, message);
  }

  @ParameterizedTest
  @MethodSource
  void listings(Script script, Class<?> type, String message) throws IOException {
    try (ScriptedServer server = ScriptedServer.of(waiting(script))) {
      assertThatThrownBy(() -> NbdClient.list(NbdUri.parse(server.uri()), ClientSettings.DEFAULT))
          .isInstanceOf(type)
          .hasMessageStartingWith("nbd+unix:///?socket=")
          .hasMessageContaining(message);
    }
  }

  @Test
  void aListWithoutEndIsGivenUp() throws IOException {
    Script script =
        Point.LISTING.then(
            client -> {
              try {
                while (true) {
                  client.reply(LIST, SERVER, listed("a", "x".repeat(60_000)));
                }
              } catch (IOException gone) {
                assertThat(gone).isNotNull();
              }
            });
    try (ScriptedServer server = ScriptedServer.of(script)) {
      assertThatThrownBy(() -> NbdClient.list(NbdUri.parse(server.uri()), ClientSettings.DEFAULT))
          .isInstanceOf(ProtocolException.class)
          .hasMessageContaining("longer than 16777216 bytes");
    }
  }

  @Test
  void contextsAreListed() throws IOException {
    Script script =
        client -> {
          client.greet(3);
          client.expectOption(EXTENDED_HEADERS);
          client.reply(EXTENDED_HEADERS, ACK);
          assertThat(client.expectOption(LIST_META_CONTEXT))
              .isEqualTo(Bytes.of().u32(1).text("d").u32(0).toArray());
          client
              .reply(LIST_META_CONTEXT, META_CONTEXT, context(0, "base:allocation"))
              .reply(LIST_META_CONTEXT, META_CONTEXT, context(0, "qemu:dirty-bitmap:b"))
              .reply(LIST_META_CONTEXT, ACK);
          client.expectOption(ABORT);
        };
    try (ScriptedServer server = ScriptedServer.of(script)) {
      assertThat(NbdClient.listContexts(NbdUri.parse(server.uri()), "d", ClientSettings.DEFAULT))
          .containsExactly("base:allocation", "qemu:dirty-bitmap:b");
    }
  }

  // STARTTLS.

  private static NbdUri secure(ScriptedServer server) {
    return NbdUri.parse("nbds" + server.uri().substring(3));
  }

  @Test
  void withoutTlsThereIsNoConnectionForATlsUri() throws IOException {
    Script refusing =
        Point.SECURING.then(c -> c.refuse(STARTTLS, ERR_POLICY, "plain only").awaitEnd());
    try (ScriptedServer server = ScriptedServer.of(refusing, client -> client.greet(0))) {
      assertThatThrownBy(() -> NbdClient.connect(secure(server), "", ClientSettings.DEFAULT))
          .isInstanceOf(OptionException.class)
          .hasMessageContaining("TLS is refused: ERR_POLICY: plain only");
      assertThatThrownBy(() -> NbdClient.connect(secure(server), "", ClientSettings.DEFAULT))
          .hasMessageContaining("cannot do TLS");
    }
  }

  @Test
  void bytesInjectedBeforeTlsAreRefused() throws IOException {
    Bytes both = Bytes.of().u64(0x3e889045565a9L).u32(STARTTLS).u32(ACK).u32(0);
    byte[] injected = both.text("injected").toArray();
    Script script = Point.SECURING.then(client -> client.send(injected).awaitEnd());
    try (ScriptedServer server = ScriptedServer.of(script)) {
      assertThatThrownBy(() -> NbdClient.connect(secure(server), "", ClientSettings.DEFAULT))
          .isInstanceOf(ProtocolException.class)
          .hasMessageContaining("between its ACK and TLS");
    }
  }
}
