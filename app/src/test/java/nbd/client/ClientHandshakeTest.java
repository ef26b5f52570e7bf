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

/** What a user learns of servers that agree, refuse, fall short or go mad in the handshake. */
@Timeout(60)
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
  void allThatTheServerTellsIsKnown(Replies replies) throws IOException {
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
  void aServerThatTellsNoBlockSizesHasTheUsualOnes() throws IOException {
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
  void aServerOfOldKnowsOnlyTheName(int greeting) throws IOException {
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
  void flagsThatTheServerDoesNotSayToHaveAreNotThere() throws IOException {
    try (ScriptedServer server =
            ScriptedServer.of(client -> client.open(Replies.SIMPLE, 1, 0x104).awaitEnd());
        NbdClient client = open(server)) {
      assertThat(client.export().flags()).isEmpty();
    }
  }

  @Test
  void aContextThatIsRefusedIsDoneWithout() throws IOException {
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

  /** Everything up to GO, and then this. */
  private static Script go(Script then) {
    return client -> {
      client.agree(Replies.STRUCTURED).expectOption(GO);
      then.play(client);
    };
  }

  /** An option in place of the first one, answered so. */
  private static Script first(Script then) {
    return client -> {
      client.greet(3);
      client.expectOption(EXTENDED_HEADERS);
      then.play(client);
    };
  }

  private static Script choosing(Script then) {
    return client -> {
      client.greet(3);
      client.expectOption(EXTENDED_HEADERS);
      client.reply(EXTENDED_HEADERS, ACK).expectOption(SET_META_CONTEXT);
      then.play(client);
    };
  }

  static Stream<Arguments> refusals() {
    return Stream.of(
        argumentSet(
            "unknown",
            go(client -> client.refuse(GO, ERR_UNKNOWN, "no\nsuch\0disk").awaitEnd()),
            OptionReplyType.ERR_UNKNOWN,
            "export \"disk\" is refused: ERR_UNKNOWN: no such disk"),
        argumentSet(
            "policy",
            go(client -> client.refuse(GO, ERR_POLICY, "").awaitEnd()),
            OptionReplyType.ERR_POLICY,
            "export \"disk\" is refused: ERR_POLICY"),
        argumentSet(
            "block size",
            go(client -> client.refuse(GO, 0x80000008, "ask").awaitEnd()),
            OptionReplyType.ERR_BLOCK_SIZE_REQD,
            "ERR_BLOCK_SIZE_REQD: ask"),
        argumentSet(
            "shutdown",
            go(client -> client.refuse(GO, 0x80000007, "").awaitEnd()),
            OptionReplyType.ERR_SHUTDOWN,
            "shutting down"),
        argumentSet(
            "an error of the future",
            go(client -> client.refuse(GO, 0x80001234, "from the future").awaitEnd()),
            OptionReplyType.ERR_INVALID,
            "from the future"),
        argumentSet(
            "TLS, at once",
            first(client -> client.refuse(EXTENDED_HEADERS, ERR_TLS_REQD, "").awaitEnd()),
            OptionReplyType.ERR_TLS_REQD,
            "use nbds://"),
        argumentSet(
            "TLS, for contexts",
            choosing(client -> client.refuse(SET_META_CONTEXT, ERR_TLS_REQD, "").awaitEnd()),
            OptionReplyType.ERR_TLS_REQD,
            "use nbds://"),
        argumentSet(
            "TLS, for GO",
            go(client -> client.refuse(GO, ERR_TLS_REQD, "first TLS").awaitEnd()),
            OptionReplyType.ERR_TLS_REQD,
            "first TLS (use nbds://"));
  }

  @ParameterizedTest
  @MethodSource
  void refusals(Script script, OptionReplyType type, String message) throws IOException {
    try (ScriptedServer server = ScriptedServer.of(script)) {
      assertThatThrownBy(() -> open(server))
          .isInstanceOfSatisfying(
              OptionException.class, refused -> assertThat(refused.type()).isEqualTo(type))
          .hasMessageStartingWith(uri(server) + ": ")
          .hasMessageContaining(message);
    }
  }

  static Stream<Arguments> mistakes() {
    return Stream.of(
        argumentSet(
            "no NBD at all",
            (Script) c -> c.send(Bytes.of().text("HTTP/1.1 200 OK\r\n\r\n..")),
            "this is no NBD server"),
        argumentSet(
            "oldstyle",
            (Script) c -> c.send(Bytes.of().text("NBDMAGIC").u64(0x420281861253L).u64(0).u64(0)),
            "oldstyle"),
        argumentSet(
            "another style",
            (Script) c -> c.send(Bytes.of().text("NBDMAGICNBDMAGIC").u16(3)),
            "0x4e42444d41474943"),
        argumentSet(
            "the reply's magic",
            first(c -> c.send(Bytes.of().u64(0x1234).u32(0).u32(0).u32(0))),
            "magic"),
        argumentSet(
            "another option's reply",
            first(c -> c.reply(GO, ACK)),
            "answered option 7 where EXTENDED_HEADERS was sent"),
        argumentSet(
            "a reply of 4 GiB",
            first(
                c ->
                    c.send(
                        Bytes.of()
                            .u64(0x0003e889045565a9L)
                            .u32(EXTENDED_HEADERS)
                            .u32(ERR_UNSUP)
                            .u32(0xffff_ffffL))),
            "4294967295 bytes"),
        argumentSet(
            "an unknown reply", first(c -> c.reply(EXTENDED_HEADERS, 99)), "unknown type 99"),
        argumentSet(
            "INFO for an option without",
            first(c -> c.reply(EXTENDED_HEADERS, INFO)),
            "EXTENDED_HEADERS by INFO"),
        argumentSet(
            "ACK with data",
            first(c -> c.reply(EXTENDED_HEADERS, ACK, (byte) 1)),
            "ACK of EXTENDED_HEADERS has data"),
        argumentSet(
            "a context that was not asked for",
            choosing(c -> c.reply(SET_META_CONTEXT, META_CONTEXT, ctx(1, "qemu:x"))),
            "\"qemu:x\""),
        argumentSet(
            "a context twice",
            choosing(
                c ->
                    c.reply(SET_META_CONTEXT, META_CONTEXT, ctx(1, "base:allocation"))
                        .reply(SET_META_CONTEXT, META_CONTEXT, ctx(2, "base:allocation"))),
            "base:allocation"),
        argumentSet(
            "a context without a name",
            choosing(c -> c.reply(SET_META_CONTEXT, META_CONTEXT, ctx(1, ""))),
            "no name"),
        argumentSet(
            "a context for INFO", choosing(c -> c.reply(SET_META_CONTEXT, INFO)), "by INFO"),
        argumentSet(
            "no size",
            go(c -> c.reply(GO, INFO, blockSizes(1, 512, 1 << 20)).reply(GO, ACK)),
            "did not tell the export's size"),
        argumentSet(
            "two sizes",
            go(c -> c.reply(GO, INFO, export(1, 1)).reply(GO, INFO, export(1, 1))),
            "twice"),
        argumentSet(
            "a negative size", go(c -> c.reply(GO, INFO, export(-1, 1))), "negative or huge"),
        argumentSet("an empty piece", go(c -> c.reply(GO, INFO, (byte) 0)), "too short"),
        argumentSet(
            "a short size",
            go(c -> c.reply(GO, INFO, Bytes.of().u16(0).u64(1).toArray())),
            "EXPORT has 8 bytes"),
        argumentSet(
            "long block sizes",
            go(c -> c.reply(GO, INFO, Bytes.of().u16(3).u64(1).u64(1).toArray())),
            "BLOCK_SIZE has 16 bytes"),
        argumentSet("minimum 0", sizes(0, 512, 1 << 20), "block sizes 0, 512"),
        argumentSet("minimum 3", sizes(3, 512, 3 << 20), "block sizes 3"),
        argumentSet("minimum 128 KiB", sizes(1 << 17, 1 << 17, 1 << 20), "block sizes 131072"),
        argumentSet("preferred 0", sizes(1, 0, 1 << 20), "block sizes 1, 0"),
        argumentSet("preferred 1000", sizes(1, 1000, 1 << 20), "block sizes 1, 1000"),
        argumentSet("preferred below", sizes(4096, 512, 1 << 20), "block sizes 4096, 512"),
        argumentSet("maximum 0", sizes(1, 512, 0), "and 0 are none"),
        argumentSet("maximum odd", sizes(512, 512, (1 << 20) + 1), "and 1048577 are none"),
        argumentSet(
            "a context for GO", go(c -> c.reply(GO, META_CONTEXT, ctx(1, "x"))), "META_CONTEXT"));
  }

  private static byte[] ctx(int id, String name) {
    return context(id, name);
  }

  private static Script sizes(long minimum, long preferred, long maximum) {
    return go(c -> c.reply(GO, INFO, blockSizes(minimum, preferred, maximum)));
  }

  @ParameterizedTest
  @MethodSource
  void mistakes(Script script, String message) throws IOException {
    Script whole =
        client -> {
          script.play(client);
          client.awaitEnd();
        };
    try (ScriptedServer server = ScriptedServer.of(whole)) {
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
        argumentSet("before an answer", first(c -> {})),
        argumentSet("in a reply's header", first(c -> c.send(Bytes.of().u64(0x3e889045565a9L)))),
        argumentSet(
            "in a reply's data",
            go(c -> c.send(Bytes.of().u64(0x3e889045565a9L).u32(GO).u32(INFO).u32(12).u64(0)))),
        argumentSet("between replies", go(c -> c.reply(GO, INFO, export(1, 1)))));
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
  void anExportNameThatMakesTheServerGoIsSaidToBeWrong() throws IOException {
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
  void aServerThatSaysNothingIsGivenUp() throws IOException {
    ClientSettings hasty = new ClientSettings(Duration.ofMillis(700), Duration.ZERO);
    Script[] silent = {Peer::awaitEnd, first(Peer::awaitEnd), go(Peer::awaitEnd)};
    try (ScriptedServer server = ScriptedServer.of(silent)) {
      for (int i = 0; i < silent.length; i++) {
        assertThatThrownBy(() -> NbdClient.connect(NbdUri.parse(server.uri()), "disk", hasty))
            .hasMessage(uri(server) + ": the server did not complete the handshake within 700 ms");
      }
    }
  }

  @Test
  void nobodyThereIsSaidSo() {
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
    return Stream.of(
        argumentSet(
            "unknown", list(c -> c.refuse(LIST, ERR_UNSUP, "")), OptionException.class, "UNSUP"),
        argumentSet(
            "refused",
            list(c -> c.reply(LIST, SERVER, listed("a", "")).refuse(LIST, ERR_POLICY, "secret")),
            OptionException.class,
            "the list of exports is refused: ERR_POLICY: secret"),
        argumentSet(
            "a long name",
            list(c -> c.reply(LIST, SERVER, Bytes.of().u32(9).text("a").toArray())),
            ProtocolException.class,
            "longer than the reply"),
        argumentSet(
            "a name of 4 GiB",
            list(c -> c.reply(LIST, SERVER, Bytes.of().u32(-1).text("a").toArray())),
            ProtocolException.class,
            "longer than the reply"),
        argumentSet(
            "no name",
            list(c -> c.reply(LIST, SERVER, (byte) 0)),
            ProtocolException.class,
            "longer than the reply"),
        argumentSet(
            "a name that is no name",
            list(c -> c.reply(LIST, SERVER, listed("a\0b", ""))),
            ProtocolException.class,
            "NUL"),
        argumentSet("not fixed", (Script) c -> c.greet(2), IOException.class, "cannot list"));
  }

  private static Script list(Script then) {
    return client -> {
      client.greet(3);
      client.expectOption(LIST);
      then.play(client);
      client.awaitEnd();
    };
  }

  @ParameterizedTest
  @MethodSource
  void listings(Script script, Class<?> type, String message) throws IOException {
    try (ScriptedServer server = ScriptedServer.of(script)) {
      assertThatThrownBy(() -> NbdClient.list(NbdUri.parse(server.uri()), ClientSettings.DEFAULT))
          .isInstanceOf(type)
          .hasMessageStartingWith("nbd+unix:///?socket=")
          .hasMessageContaining(message);
    }
  }

  @Test
  void aListWithoutEndIsGivenUp() throws IOException {
    Script script =
        client -> {
          client.greet(3);
          client.expectOption(LIST);
          try {
            while (true) {
              client.reply(LIST, SERVER, listed("a", "x".repeat(60_000)));
            }
          } catch (IOException gone) {
            assertThat(gone).isNotNull();
          }
        };
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
              .reply(LIST_META_CONTEXT, META_CONTEXT, ctx(0, "base:allocation"))
              .reply(LIST_META_CONTEXT, META_CONTEXT, ctx(0, "qemu:dirty-bitmap:b"))
              .reply(LIST_META_CONTEXT, ACK);
          client.expectOption(ABORT);
        };
    try (ScriptedServer server = ScriptedServer.of(script)) {
      assertThat(NbdClient.listContexts(NbdUri.parse(server.uri()), "d", ClientSettings.DEFAULT))
          .containsExactly("base:allocation", "qemu:dirty-bitmap:b");
    }
  }

  // TLS, as far as it is not a matter of TLS.

  private static NbdUri secure(ScriptedServer server) {
    return NbdUri.parse("nbds" + server.uri().substring(3));
  }

  @Test
  void tlsThatIsRefusedIsNotDoneWithout() throws IOException {
    Script refusing =
        client -> {
          client.greet(3);
          client.expectOption(STARTTLS);
          client.refuse(STARTTLS, ERR_POLICY, "plain only").awaitEnd();
        };
    try (ScriptedServer server = ScriptedServer.of(refusing, client -> client.greet(0))) {
      assertThatThrownBy(() -> NbdClient.connect(secure(server), "", ClientSettings.DEFAULT))
          .isInstanceOf(OptionException.class)
          .hasMessageContaining("TLS is refused: ERR_POLICY: plain only");
      assertThatThrownBy(() -> NbdClient.connect(secure(server), "", ClientSettings.DEFAULT))
          .hasMessageContaining("cannot do TLS");
    }
  }

  @Test
  void whatIsInjectedBeforeTlsIsNotBelieved() throws IOException {
    Script script =
        client -> {
          client.greet(3);
          client.expectOption(STARTTLS);
          Bytes both = Bytes.of().u64(0x3e889045565a9L).u32(STARTTLS).u32(ACK).u32(0);
          client.send(both.text("injected")).awaitEnd();
        };
    try (ScriptedServer server = ScriptedServer.of(script)) {
      assertThatThrownBy(() -> NbdClient.connect(secure(server), "", ClientSettings.DEFAULT))
          .isInstanceOf(ProtocolException.class)
          .hasMessageContaining("between its ACK and TLS");
    }
  }
}
