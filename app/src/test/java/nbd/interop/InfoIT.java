package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The exports as nbdinfo, nbd-client and nbdsh see them. */
@Timeout(300)
final class InfoIT {
  @TempDir private static Path directory;
  private static ServeProcess tcp;
  private static ServeProcess unix;

  @BeforeAll
  static void start() throws Exception {
    tcp = ServeProcess.ready("-p", "0", "-e", "disk", "-e", "other", "-D", "a disk", "memory:1G");
    unix = ServeProcess.ready("-U", directory.resolve("a socket").toString(), "-r", "null:8G");
  }

  @AfterAll
  static void stop() throws Exception {
    tcp.stop();
    assertThat(tcp.err().lines()).allMatch(line -> line.contains("there is no export"));
    unix.stopQuietly();
    tcp.close();
    unix.close();
  }

  @Test
  void allNamesAreListed() throws Exception {
    String list = Tools.run("nbdinfo", "--list", tcp.uri("")).ok().out();
    assertThat(list).contains("export=\"disk\"", "export=\"other\"", "description: a disk");
    assertThat(Tools.run("nbdinfo", "--list", unix.uri()).ok().out()).contains("export=\"\"");
  }

  private static String json(String uri) throws Exception {
    return Tools.run("nbdinfo", "--json", uri).ok().out().replaceAll("\\s", "");
  }

  @Test
  void theDetailsAreJson() throws Exception {
    assertThat(json(tcp.uri()))
        .contains(
            "\"protocol\":\"newstyle-fixed\",\"TLS\":false,\"structured\":true,",
            "\"export-name\":\"disk\"",
            "\"description\":\"adisk\"",
            "\"export-size\":1073741824",
            "\"block_size_minimum\":1",
            "\"block_size_preferred\":4096",
            "\"block_size_maximum\":33554432");
  }

  @Test
  void whatAnExportCanDoIsTold() throws Exception {
    for (ServeProcess serve : List.of(tcp, unix)) {
      boolean readOnly = serve == unix;
      assertThat(json(serve.uri()))
          .contains(
              ("\"is_rotational\":false,\"is_read_only\":%2$s,\"can_cache\":true,\"can_df\":true,"
                      + "\"can_fast_zero\":%1$s,\"can_flush\":true,\"can_fua\":true,"
                      + "\"can_multi_conn\":true,\"can_trim\":%1$s,\"can_zero\":%1$s,")
                  .formatted(!readOnly, readOnly));
    }
  }

  @Test
  void theSizesAreRight() throws Exception {
    assertThat(Tools.run("nbdinfo", "--size", tcp.uri("other")).ok().out())
        .isEqualTo("1073741824\n");
    assertThat(Tools.run("nbdinfo", "--size", unix.uri()).ok().out()).isEqualTo("8589934592\n");
  }

  @Test
  void theMapHasDataAndHoles() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-p", "0", "memory:10G")) {
      Tools.qemuIo(serve.uri(), "write -P 1 5G 1M", "write -P 2 9G 64k");
      String map = Tools.run("nbdinfo", "--map", serve.uri()).ok().out();
      assertThat(map.lines().map(line -> line.strip().replaceAll(" +", " ")))
          .containsExactly(
              "0 5368709120 3 hole,zero",
              "5368709120 1048576 0 data",
              "5369757696 4293918720 3 hole,zero",
              "9663676416 65536 0 data",
              "9663741952 1073676288 3 hole,zero");
      assertThat(Tools.run("nbdinfo", "--json", serve.uri()).ok().out())
          .contains("\"base:allocation\"");
      String qemu = Tools.run("qemu-img", "map", "--output=json", serve.uri()).ok().out();
      assertThat(qemu)
          .contains("\"start\": 5368709120, \"length\": 1048576", "\"start\": 5369757696")
          .hasLineCount(5);
      assertThat(Tools.run("nbdinfo", "--map", unix.uri()).ok().out())
          .matches("\\s*0\\s+8589934592\\s+0\\s+data\\s*");
      serve.stopQuietly();
    }
  }

  @Test
  void nbdshSeesHolesExtentsAndFastZeroes() throws Exception {
    Tools.run(
            "nbdsh",
            "-c",
            """
            h.add_meta_context("base:allocation")
            h.connect_uri("%s")
            assert h.get_structured_replies_negotiated()
            assert h.can_meta_context("base:allocation")
            data = bytes(range(256)) * 256
            h.pwrite(data, 512 << 20)
            chunks = []
            def chunk(subbuf, offset, status, error):
                chunks.append((len(subbuf), offset - (512 << 20), status))
            got = h.pread_structured(4 << 20, (512 << 20) - (1 << 20), chunk)
            assert got == bytes(1 << 20) + data + bytes((3 << 20) - 65536)
            assert chunks == [(1 << 20, -1 << 20, nbd.READ_HOLE), (65536, 0, nbd.READ_DATA),
                              ((3 << 20) - 65536, 65536, nbd.READ_HOLE)], chunks
            chunks.clear()
            h.pread_structured(4 << 20, (512 << 20) - (1 << 20), chunk, nbd.CMD_FLAG_DF)
            assert len(chunks) == 1
            told = []
            def extent(context, offset, entries, error):
                told.append((context, offset, entries))
            h.block_status(2 << 20, 512 << 20, extent)
            assert told == [("base:allocation", 512 << 20, [65536, 0, (2 << 20) - 65536, 3])], told
            h.block_status(100, 512 << 20, extent, nbd.CMD_FLAG_REQ_ONE)
            assert told[1][2] == [100, 0], told
            h.zero(65536, 512 << 20, nbd.CMD_FLAG_FAST_ZERO)
            h.block_status(65536, 512 << 20, extent)
            assert told[2][2][1] == 3, told
            h.set_strict_mode(0)
            try:
                h.pread_structured(512, 1 << 40, chunk)
                assert False
            except nbd.Error as e:
                assert e.errno == "EINVAL"
            h.shutdown()
            """
                .formatted(tcp.uri()))
        .ok();
  }

  @Test
  void nbdshSeesWhereAReadFailed() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-p", "0", "--error-read=1:EIO", "memory:1G")) {
      Tools.run(
              "nbdsh",
              "-c",
              """
              h.connect_uri("%s")
              chunks = []
              def chunk(subbuf, offset, status, error):
                  chunks.append((len(subbuf), offset, status))
              for length in 512, 1 << 20:
                  try:
                      h.pread_structured(length, 4096, chunk)
                      assert False
                  except nbd.Error as e:
                      assert e.errno == "EIO"
              assert chunks == [(0, 4096, nbd.READ_ERROR)] * 2, chunks
              h.shutdown()
              """
                  .formatted(serve.uri()))
          .ok();
      serve.stop();
    }
  }

  @Test
  void anUnknownExportIsRefusedWithTheReason() throws Exception {
    Tools.Result refused = Tools.run("nbdinfo", "--size", tcp.uri("nobody"));
    assertThat(refused.status()).isEqualTo(1);
    assertThat(refused.err()).contains("nobody");
  }

  @Test
  void nbdClientListsTheExports() throws Exception {
    java.net.InetSocketAddress address = (java.net.InetSocketAddress) tcp.address();
    Tools.Result list = Tools.run("nbd-client", "-l", "127.0.0.1", "-p", "" + address.getPort());
    assertThat(list.out()).contains("disk", "other");
  }

  @Test
  void nbdshReadsWhatItWroteOnAnotherConnection() throws Exception {
    Tools.run(
            "nbdsh",
            "-c",
            """
            uri = "%s"
            h.connect_uri(uri)
            other = nbd.NBD()
            other.connect_uri(uri)
            assert h.can_multi_conn()
            data = bytes(range(256)) * 4096
            h.pwrite(data, 12345)
            h.flush()
            assert other.pread(len(data), 12345) == data
            other.zero(1000, 12345, nbd.CMD_FLAG_NO_HOLE)
            other.trim(4096, 1 << 29, nbd.CMD_FLAG_FUA)
            other.cache(4096, 0)
            assert h.pread(1000, 12345) == bytes(1000)
            try:
                h.pread(1, 1 << 30)
                assert False
            except nbd.Error as e:
                assert e.errno == "EINVAL"
            h.shutdown()
            other.shutdown()
            """
                .formatted(tcp.uri()))
        .ok();
  }

  @Test
  void aReadOnlyExportIsReadOnlyForEveryClient() throws Exception {
    Tools.run(
            "nbdsh",
            "-c",
            """
            h.set_strict_mode(0)
            h.connect_uri("%s")
            assert h.is_read_only()
            for call in [lambda: h.pwrite(b"x", 0), lambda: h.trim(1, 0), lambda: h.zero(1, 0)]:
                try:
                    call()
                    assert False
                except nbd.Error as e:
                    assert e.errno == "EPERM"
            assert h.pread(5, 0) == bytes(5)
            h.shutdown()
            """
                .formatted(unix.uri()))
        .ok();
  }
}
