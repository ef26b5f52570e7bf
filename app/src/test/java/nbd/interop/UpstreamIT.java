package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import nbd.testing.Bytes;
import nbd.testing.RawClient;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** The server in front of other projects' servers: its clients see the features of those. */
@Timeout(300)
final class UpstreamIT {
  private static final int SIZE = 48 << 20;
  private static final String MEMORY = "memory";

  @TempDir private Path directory;
  private Path disk;

  @BeforeEach
  void create() throws IOException {
    disk = directory.resolve("disk.img");
    try (java.io.RandomAccessFile file = new java.io.RandomAccessFile(disk.toFile(), "rw")) {
      file.setLength(SIZE);
    }
  }

  /** Servers, each with the file as its export. */
  enum Kind {
    NBDKIT,
    NBDKIT_TCP_WITHOUT_STRUCTURED_REPLIES,
    NBDKIT_NEWSTYLE_WITHOUT_OPTIONS,
    QEMU_NBD,
    QEMU_NBD_TCP_NAMED,
    NBD_SERVER;

    UpstreamProcess start(Path directory, Path disk) throws Exception {
      return switch (this) {
        case NBDKIT -> UpstreamProcess.nbdkit(directory, "file", disk.toString());
        case NBDKIT_TCP_WITHOUT_STRUCTURED_REPLIES ->
            UpstreamProcess.nbdkitTcp(directory, "--no-sr", "file", disk.toString());
        case NBDKIT_NEWSTYLE_WITHOUT_OPTIONS ->
            UpstreamProcess.nbdkit(directory, "--mask-handshake=0", "file", disk.toString());
        case QEMU_NBD -> UpstreamProcess.qemuNbd(directory, "-e", "8", disk.toString());
        case QEMU_NBD_TCP_NAMED ->
            UpstreamProcess.qemuNbdTcp(
                directory, "-e", "8", "-x", "disk", "-D", "a real disk", disk.toString());
        case NBD_SERVER -> UpstreamProcess.nbdServer(directory, disk);
      };
    }

    String uri(UpstreamProcess upstream) {
      return this == QEMU_NBD_TCP_NAMED || this == NBD_SERVER
          ? upstream.uri("disk")
          : upstream.uri();
    }
  }

  private ServeProcess serve(String uri, String... more) throws Exception {
    return ServeProcess.on(directory, uri, more);
  }

  private static String field(String json, String name) {
    List<String> found =
        json.lines()
            .map(String::strip)
            .filter(line -> line.startsWith("\"" + name + "\""))
            .toList();
    return found.isEmpty() ? "" : found.getFirst().replaceAll(",$", "");
  }

  private static String json(String uri) throws Exception {
    return Tools.run("nbdinfo", "--json", uri).ok().out();
  }

  @ParameterizedTest
  @EnumSource(Kind.class)
  void nbdinfoShowsWhatTheUpstreamSays(Kind kind) throws Exception {
    try (UpstreamProcess upstream = kind.start(directory, disk);
        ServeProcess serve = serve(kind.uri(upstream))) {
      String there = json(kind.uri(upstream));
      String here = json(serve.uri());
      for (String name :
          List.of(
              "description",
              "is_read_only",
              "is_rotational",
              "can_trim",
              "can_zero",
              "can_flush",
              "block_size_minimum",
              "block_size_preferred")) {
        String said = field(there, name);
        if (!said.isEmpty()) {
          assertThat(field(here, name)).as(here).isEqualTo(said);
        }
      }
      // Before it is opened, nbd-server says 0.
      assertThat(field(here, "export-size")).endsWith(": " + SIZE);
      assertThat(field(here, "can_multi_conn")).endsWith("true");
      serve.stopQuietly();
    }
  }

  @Test
  void blockSizesAreTheUpstreams() throws Exception {
    try (UpstreamProcess upstream =
            UpstreamProcess.nbdkit(
                directory,
                "--filter=blocksize-policy",
                MEMORY,
                "48M",
                "blocksize-minimum=512",
                "blocksize-preferred=8192",
                "blocksize-maximum=1M",
                "blocksize-error-policy=error");
        ServeProcess serve = serve(upstream.uri())) {
      String here = json(serve.uri());
      assertThat(field(here, "block_size_minimum")).endsWith(": 512");
      assertThat(field(here, "block_size_preferred")).endsWith(": 8192");
      assertThat(field(here, "block_size_maximum")).endsWith(": 1048576");
      assertThat(script(serve.uri(), "print(h.pread(1 << 20, 0) == bytes(1 << 20))"))
          .isEqualTo("True\n");
      serve.stopQuietly();
    }
  }

  private static String script(String uri, String script) throws Exception {
    return Tools.run(
            "nbdsh",
            "-c",
            "h.set_strict_mode(0)",
            "-c",
            "h.connect_uri(\"%s\")".formatted(uri),
            "-c",
            script)
        .ok()
        .out();
  }

  @ParameterizedTest
  @EnumSource(Kind.class)
  void whatIsWrittenHereIsThereAndTheOtherWayRound(Kind kind) throws Exception {
    try (UpstreamProcess upstream = kind.start(directory, disk);
        ServeProcess serve = serve(kind.uri(upstream))) {
      Tools.run(
              "nbdsh",
              "-c",
              """
              here, there = nbd.NBD(), nbd.NBD()
              here.connect_uri("%s")
              there.connect_uri("%s")
              data = bytes(range(256)) * 512
              here.pwrite(data, 4096)
              here.flush()
              assert there.pread(len(data), 4096) == data
              there.pwrite(data, 1 << 20)
              there.flush()
              assert here.pread(len(data), 1 << 20) == data
              if here.can_fua():
                  here.pwrite(data[:512], 2 << 20, nbd.CMD_FLAG_FUA)
                  assert there.pread(512, 2 << 20) == data[:512]
              if here.can_zero():
                  here.zero(8192, 1 << 20)
                  assert there.pread(8192, 1 << 20) == bytes(8192)
                  here.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE)
                  assert there.pread(4096, 4096) == bytes(4096)
              if here.can_trim():
                  here.trim(65536, 4 << 20)
              if here.can_cache():
                  here.cache(65536, 0)
              here.flush()
              """
                  .formatted(serve.uri(), kind.uri(upstream)))
          .ok();
      serve.stopQuietly();
    }
  }

  @ParameterizedTest
  @EnumSource(Kind.class)
  void imagesAreCopiedBothWays(Kind kind) throws Exception {
    Path image = Files.write(directory.resolve("image"), Bytes.random(4, SIZE));
    Path copy = directory.resolve("copy");
    try (UpstreamProcess upstream = kind.start(directory, disk);
        ServeProcess serve = serve(kind.uri(upstream))) {
      String uri = serve.uri();
      Tools.run("nbdcopy", "--flush", "--connections=4", image.toString(), uri).ok();
      Tools.run("nbdcopy", "--connections=4", uri, copy.toString()).ok();
      assertThat(Files.mismatch(image, copy)).isEqualTo(-1);
      assertThat(Files.mismatch(image, disk)).isEqualTo(-1);
      Tools.run("qemu-img", "compare", "-f", "raw", "-F", "raw", image.toString(), uri).ok();
      serve.stopQuietly();
    }
  }

  @ParameterizedTest
  @EnumSource(Kind.class)
  void requestsOfTheGreatestLengthAreServed(Kind kind) throws Exception {
    try (UpstreamProcess upstream = kind.start(directory, disk);
        ServeProcess serve = serve(kind.uri(upstream))) {
      assertThat(
              script(
                  serve.uri(),
                  """
                  data = bytes(range(256)) * (1 << 17)
                  h.pwrite(data, 3 << 20)
                  h.flush()
                  print(len(data) >> 20, h.pread(len(data), 3 << 20) == data)
                  """))
          .isEqualTo("32 True\n");
      Tools.qemuIo(serve.uri(), "write -P 0x77 16M 32M", "flush", "read -P 0x77 16M 32M");
      serve.stopQuietly();
    }
  }

  @ParameterizedTest
  @EnumSource(Kind.class)
  void fioVerifiesWhatItWrote(Kind kind) throws Exception {
    try (UpstreamProcess upstream = kind.start(directory, disk);
        ServeProcess serve = serve(kind.uri(upstream))) {
      String[] fio =
          Tools.fio(
              serve.uri(),
              "--rw=randwrite",
              "--bsrange=512-64k",
              "--blockalign=512",
              "--numjobs=4",
              "--size=4M",
              "--offset_increment=4M",
              "--iodepth=8",
              "--fsync=50");
      assertThat(Tools.run(fio).ok().out()).contains("err= 0");
      serve.stopQuietly();
    }
  }

  @ParameterizedTest
  @CsvSource({"pread, ENOMEM", "pwrite, ENOSPC", "zero, EINVAL", "trim, EIO"})
  void errorsOfTheUpstreamReachTheClientWithTheirNumber(String method, String error)
      throws Exception {
    try (UpstreamProcess upstream =
            UpstreamProcess.nbdkit(
                directory,
                "--filter=error",
                MEMORY,
                "1M",
                "error-%s=%s".formatted(method, error),
                "error-%s-rate=100%%".formatted(method));
        ServeProcess serve = serve(upstream.uri())) {
      assertThat(
              script(
                  serve.uri(),
                  """
                  calls = {
                      "pread": lambda: h.pread(512, 0), "pwrite": lambda: h.pwrite(bytes(512), 0),
                      "zero": lambda: h.zero(512, 0), "trim": lambda: h.trim(512, 0)}
                  for name in calls:
                      try: calls[name]()
                      except nbd.Error as error: print(name, error.errno)
                  h.flush()
                  """))
          .isEqualTo("%s %s\n".formatted(method, error));
      serve.stop();
      assertThat(serve.err()).hasLineCount(1).contains("failed with " + error, upstream.uri());
    }
  }

  @ParameterizedTest
  @CsvSource({"-r, -v", "-v, -r"})
  void whatIsReadOnlyThereOrHereIsReadOnly(String there, String here) throws Exception {
    try (UpstreamProcess upstream =
            UpstreamProcess.nbdkit(directory, there, "file", disk.toString());
        ServeProcess serve = serve(upstream.uri(), here)) {
      assertThat(Tools.run("nbdinfo", "--is=read-only", serve.uri()).status()).isZero();
      assertThat(
              script(
                  serve.uri(),
                  """
                  for call in [lambda: h.pwrite(bytes(512), 0), lambda: h.trim(512, 0)]:
                      try: call()
                      except nbd.Error as error: print(error.errno)
                  print(h.pread(512, 0) == bytes(512))
                  """))
          .isEqualTo("EPERM\nEPERM\nTrue\n");
      serve.stop();
    }
  }

  /** Each request is held until all have arrived. */
  @Test
  void theRequestsOfOneClientAreTogetherUpstream() throws Exception {
    CachingPlugin plugin = new CachingPlugin(directory);
    try (UpstreamProcess upstream = UpstreamProcess.nbdkit(directory, plugin.arguments());
        ServeProcess serve = serve(upstream.uri(), "--connect-timeout=2m");
        RawClient client = serve.client()) {
      plugin.hold("pread", 1);
      for (int i = 0; i < 16; i++) {
        client.request(0, RawClient.READ, i, (long) i * CachingPlugin.BLOCK, CachingPlugin.BLOCK);
      }
      plugin.log().awaitBegun("Read", 1, 16);
      assertThat(plugin.log().mostTogether("Read")).isEqualTo(16);
      plugin.release("pread", 1);
      for (int i = 0; i < 16; i++) {
        client.expectReply(0);
        client.take(CachingPlugin.BLOCK);
      }
      serve.stopQuietly();
    }
  }

  // Names.

  @Test
  void theUpstreamsExportsAreListedAndOpenedByTheirNames() throws Exception {
    Path files = Files.createDirectory(directory.resolve("files"));
    Files.write(files.resolve("one"), new byte[4096]);
    Files.write(files.resolve("two words"), new byte[8192]);
    try (UpstreamProcess upstream = UpstreamProcess.nbdkit(directory, "file", "dir=" + files);
        ServeProcess serve = serve(upstream.uri(), "--dynamic-export")) {
      String list = Tools.run("nbdinfo", "--list", "--json", serve.uri("")).ok().out();
      assertThat(list).contains("\"export-name\": \"one\"", "\"export-name\": \"two words\"");
      assertThat(list).contains("\"export-size\": 4096", "\"export-size\": 8192");
      assertThat(Tools.run("nbdinfo", "--size", serve.uri("two%20words")).ok().out())
          .isEqualTo("8192\n");
      serve.stop();
    }
  }

  @Test
  void theUpstreamsDescriptionsAreListed() throws Exception {
    try (UpstreamProcess upstream =
            UpstreamProcess.qemuNbd(
                directory, "-e", "8", "-x", "disk", "-D", "a real disk", disk.toString());
        ServeProcess serve = serve(upstream.uri(), "--dynamic-export");
        RawClient client = RawClient.connect(serve.address())) {
      client.hello(3).option(RawClient.LIST);
      assertThat(RawClient.text(client.reply(RawClient.LIST))).endsWith("diska real disk");
      client.expectAck(RawClient.LIST);
      assertThat(field(json(serve.uri("disk")), "description")).contains("a real disk");
      serve.stopQuietly();
    }
  }

  @Test
  void anUnknownNameIsRefusedInTheUpstreamsWords() throws Exception {
    try (UpstreamProcess upstream =
            UpstreamProcess.qemuNbd(directory, "-e", "8", "-x", "disk", disk.toString());
        ServeProcess serve = serve(upstream.uri(), "--dynamic-export");
        RawClient client = RawClient.connect(serve.address())) {
      client.hello(3).option(RawClient.GO, RawClient.infoData("nobody"));
      assertThat(client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN))
          .contains("export 'nobody' not present");
      client.option(RawClient.GO, RawClient.infoData("disk")).expectInfos(RawClient.GO);
      client.disconnect();
      serve.stop();
    }
  }

  @Test
  void withoutDynamicExportTheNamesAreThoseOfTheCommandLine() throws Exception {
    try (UpstreamProcess upstream =
            UpstreamProcess.qemuNbd(directory, "-e", "8", "-x", "disk", disk.toString());
        ServeProcess serve = serve(upstream.uri("disk"), "-e", "mine", "-D", "my words")) {
      String info = json(serve.uri("mine"));
      assertThat(field(info, "description")).contains("my words");
      assertThat(field(info, "export-size")).contains("" + SIZE);
      assertThat(Tools.run("nbdinfo", serve.uri("disk")).status()).isEqualTo(1);
      serve.stop();
    }
  }

  // An upstream that is not there.

  @Test
  void whileTheUpstreamIsDownClientsAreToldAndLaterServed() throws Exception {
    Path socket = UpstreamProcess.socket(directory);
    try (ServeProcess serve = serve("nbd+unix:///?socket=" + socket, "--handshake-timeout=10m")) {
      assertThat(Tools.run("nbdinfo", serve.uri()).status()).isEqualTo(1);
      assertThat(Tools.run("qemu-img", "info", serve.uri()).err())
          .contains("the server's log says why");
      try (RawClient client = RawClient.connect(serve.address())) {
        client.hello(3).option(RawClient.GO, RawClient.infoData(""));
        assertThat(client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN))
            .contains("the server's log says why")
            .doesNotContain(socket.toString());
        try (UpstreamProcess upstream = UpstreamProcess.nbdkit(directory, MEMORY, "1M")) {
          // The client that was refused may ask again.
          client.option(RawClient.GO, RawClient.infoData("")).expectInfos(RawClient.GO);
          client.write(0, (byte) 1).flush().disconnect();
          assertThat(Tools.run("nbdinfo", "--size", serve.uri()).ok().out()).isEqualTo("1048576\n");
          assertThat(upstream.uri()).contains(socket.toString());
        }
      }
      serve.stop();
      assertThat(serve.err())
          .contains("cannot be opened", "cannot connect", socket.toString())
          .doesNotContain("\tat ");
    }
  }

  @Test
  void anUpstreamThatNeverAnswersIsGivenUpBeforeTheClient() throws Exception {
    try (ServerSocket silent = new ServerSocket(0, 9, InetAddress.getLoopbackAddress());
        ServeProcess serve =
            serve("nbd://127.0.0.1:" + silent.getLocalPort(), "--connect-timeout=300ms");
        RawClient client = RawClient.connect(serve.address())) {
      client.hello(3);
      for (int i = 0; i < 2; i++) {
        client.option(RawClient.GO, RawClient.infoData(""));
        assertThat(client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN))
            .contains("the server's log says why");
      }
      serve.stop();
      assertThat(serve.err())
          .as("one line for a client that only asks again")
          .hasLineCount(1)
          .contains("did not complete the handshake within");
    }
  }
}
