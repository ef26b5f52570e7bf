package nbd.server;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import nbd.client.ClientSettings;
import nbd.client.NbdUri;
import nbd.file.FileBackend;
import nbd.file.FileSettings;
import nbd.memory.NullBackend;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnSettings;
import nbd.posix.Errno;
import nbd.posix.PosixException;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.protocol.ReplyFormat;
import nbd.storage.Handle;
import nbd.testing.BitmapBackend;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.CheckedClient.Answer;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.Log;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import nbd.transmission.MetaContext;
import nbd.transmission.OpenExport;
import nbd.upstream.UpstreamBackend;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.tinylog.Level;

/** The log's lines on clients and failures, and the details in them that clients do not get. */
@Timeout(300)
final class LogLinesTest {
  private static final int EIO = RawClient.EIO;

  @TempDir private Path directory;

  private static List<String> lines(String word) {
    return Log.at(Level.INFO).stream().filter(line -> line.contains(word)).toList();
  }

  static Stream<Arguments> garbageIsOneLine() {
    byte[] http = "GET / HTTP/1.1\r\nHost: nbd\r\n\r\n".getBytes(UTF_8);
    byte[] go = RawClient.optionBytes(RawClient.GO, RawClient.infoData(""));
    return Stream.of(
        Arguments.of("client flags", Bytes.random(1, 4096)),
        Arguments.of("magic", Bytes.of().u32(3).raw(http).toArray()),
        Arguments.of("magic", Bytes.of().u32(3).raw(go).raw(Bytes.random(2, 28)).toArray()));
  }

  /** The garbage comes in place of the client's flags, of an option, and of a request. */
  @ParameterizedTest
  @MethodSource
  void garbageIsOneLine(String word, byte[] garbage) throws Exception {
    try (TestServer server = TestServer.of(new NullBackend(1 << 20));
        RawClient client = server.connect()) {
      client.greeting().send(garbage);
      server.awaitHandles(1);
      Eventually.isTrue("it is logged", () -> !lines("").isEmpty());
    }
    assertThat(lines("")).hasSize(1).first().asString().contains(word);
  }

  @Test
  void aClientThatOnlyLooksIsNoEvent() throws Exception {
    try (TestServer server = TestServer.of(new NullBackend(1 << 20))) {
      try (RawClient client = server.connect()) {
        client.greeting();
      }
      server.connect().close();
      server.awaitHandles(1);
    }
    assertThat(lines("")).isEmpty();
  }

  @Test
  void aWrongExportNameIsALineWithoutWhatATerminalObeys() throws Exception {
    try (TestServer server = TestServer.of(new NullBackend(1 << 20));
        RawClient client = server.connect()) {
      client.hello(3);
      byte[] go = RawClient.infoData("x\n\u0085\u202ey");
      client.option(RawClient.OPT_INFO, go).expectError(RawClient.OPT_INFO, RawClient.ERR_UNKNOWN);
      client.option(RawClient.GO, go);
      assertThat(client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN)).contains("x???y");
      assertThat(lines("no export")).hasSize(1).first().asString().contains("\"x???y\"", " from ");
      for (int name = 0; name < 100; name++) {
        client.option(RawClient.GO, RawClient.infoData("name" + name));
        client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN);
      }
      assertThat(lines("no export")).as("one client does not fill the log").hasSize(10);
    }
  }

  @Test
  void aWrongNameOfExportNameIsALine() throws Exception {
    try (TestServer server = TestServer.of(new NullBackend(1 << 20))) {
      try (RawClient client = server.connect()) {
        client.hello(3).option(RawClient.EXPORT_NAME, (byte) 'x', (byte) '\n').expectEnd();
      }
      server.awaitHandles(1);
      Eventually.isTrue("it is logged", () -> lines("no export \"x?\"").size() == 1);
    }
  }

  @Test
  void aFailedReadIsOneLine() throws Exception {
    FakeBackend fake = new FakeBackend(1 << 20);
    try (TestServer server = TestServer.of(fake);
        CheckedClient client = server.enter(Replies.STRUCTURED)) {
      server.expectErrors();
      fake.hook(
          call -> {
            throw new PosixException("pread", Errno.EIO, "/srv/secret/disk");
          });
      Answer answer = client.call(EIO, 0, RawClient.READ, 0, 512);
      assertThat(answer.message()).doesNotContain("secret").contains("log");
      assertThat(lines("READ"))
          .hasSize(1)
          .first()
          .asString()
          .contains(" from ", "/srv/secret/disk: pread: EIO");
      client.disconnect();
    }
  }

  @Test
  void aClientIsToldOfAFailureWithoutPathsAndAddressesOfTheServersSide() throws Exception {
    FakeBackend fake = new FakeBackend(1 << 20);
    try (TestServer far = TestServer.of(fake)) {
      far.expectErrors();
      Path socket = ((java.net.UnixDomainSocketAddress) far.address()).getPath();
      UpstreamBackend upstream =
          new UpstreamBackend(NbdUri.unix(socket, ""), false, ClientSettings.DEFAULT);
      try (TestServer server =
              TestServer.of(new MultiConnFilter(upstream, MultiConnSettings.DEFAULT));
          CheckedClient client = server.enter(Replies.STRUCTURED);
          CheckedClient other = server.enter(Replies.STRUCTURED)) {
        server.expectErrors();
        fake.hook(
            call -> {
              throw new NbdException(NbdError.ENOSPC, "the far disk is full");
            });
        assertThat(client.call(RawClient.ENOSPC, 0, RawClient.WRITE, 0, 1, (byte) 1))
            .extracting(Answer::message)
            .asString()
            .contains("the far disk is full")
            .doesNotContain(socket.toString());
        fake.hook(call -> {});
        client.write(0, (byte) 1);
        far.stop(java.time.Duration.ZERO);
        for (CheckedClient each : List.of(client, other)) {
          Answer answer = each.ask(0, RawClient.FLUSH, 0, 0);
          assertThat(answer.error()).isNotZero();
          assertThat(answer.message()).isNotEmpty().doesNotContain(socket.toString());
        }
        try (RawClient late = server.connect()) {
          late.hello(3).option(RawClient.GO, RawClient.infoData(""));
          assertThat(late.expectError(RawClient.GO, RawClient.ERR_UNKNOWN))
              .isNotEmpty()
              .doesNotContain(socket.toString());
        }
        assertThat(lines(socket.toString())).as("the log names it").isNotEmpty();
      }
    }
  }

  @Test
  void aFileThatIsGoneIsNotNamedToTheClient() throws Exception {
    Path disk = Files.write(directory.resolve("disk"), new byte[4096]);
    try (FileBackend file = FileBackend.open(disk, FileSettings.DEFAULT);
        TestServer server = TestServer.of(file);
        CheckedClient client = server.enter(Replies.STRUCTURED)) {
      server.expectErrors();
      truncate(disk);
      Answer answer = client.call(EIO, 0, RawClient.READ, 0, 512);
      assertThat(answer.message()).isNotEmpty().doesNotContain(disk.toString());
      assertThat(lines(disk.toString())).isNotEmpty();
      client.disconnect();
    }
  }

  private static void truncate(Path file) throws IOException {
    try (java.nio.channels.FileChannel channel =
        java.nio.channels.FileChannel.open(file, java.nio.file.StandardOpenOption.WRITE)) {
      channel.truncate(0);
    }
  }

  @Test
  void whatIsServedIsDescribedInWords() throws IOException {
    Handle handle = new FakeBackend(1).open("", false);
    for (ReplyFormat format : ReplyFormat.values()) {
      assertThat(new OpenExport("", "", handle, format, Set.of(MetaContext.ALLOCATION)).offer())
          .contains("replies", "base:allocation", "can-multi-conn")
          .doesNotContain("[", "_", "OpenExport");
      Handle changed = new BitmapBackend(new FakeBackend(1), "a\nb").open("", true);
      assertThat(new OpenExport("", "", changed, format, Set.of(MetaContext.DIRTY_BITMAP)).offer())
          .contains("replies, qemu:dirty-bitmap:a?b, flags: ");
    }
  }
}
