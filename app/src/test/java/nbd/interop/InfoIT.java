package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What nbdinfo, nbd-client and nbdsh are told of the exports. */
@Timeout(120)
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
    tcp.stopQuietly();
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

  @Test
  void theDetailsAreJson() throws Exception {
    String json = Tools.run("nbdinfo", "--json", tcp.uri()).ok().out();
    assertThat(json.replaceAll("\\s", ""))
        .contains(
            "\"protocol\":\"newstyle-fixed\"",
            "\"export-name\":\"disk\"",
            "\"description\":\"adisk\"",
            "\"export-size\":1073741824",
            "\"can_multi_conn\":true",
            "\"can_fua\":true",
            "\"can_cache\":true",
            "\"can_trim\":true",
            "\"can_zero\":true",
            "\"is_read_only\":false",
            "\"block_size_minimum\":1",
            "\"block_size_preferred\":4096",
            "\"block_size_maximum\":33554432");
  }

  @Test
  void theSizesAreRight() throws Exception {
    assertThat(Tools.run("nbdinfo", "--size", tcp.uri("other")).ok().out())
        .isEqualTo("1073741824\n");
    assertThat(Tools.run("nbdinfo", "--size", unix.uri()).ok().out()).isEqualTo("8589934592\n");
  }

  @ParameterizedTest
  @CsvSource({
    "connect,0,0",
    "flush,0,0",
    "fua,0,0",
    "multi-conn,0,0",
    "cache,0,0",
    "trim,0,2",
    "zero,0,2",
    "write,0,2",
    "read,0,0",
    "df,0,0",
    "fast-zero,2,2"
  })
  void capabilitiesAreTold(String capability, int writable, int readOnly) throws Exception {
    String option = "--can=" + capability;
    assertThat(Tools.run("nbdinfo", option, tcp.uri()).status()).isEqualTo(writable);
    assertThat(Tools.run("nbdinfo", option, unix.uri()).status()).isEqualTo(readOnly);
  }

  @ParameterizedTest
  @CsvSource({"read-only,2,0", "rotational,2,2", "tls,2,2"})
  void whatItIsIsTold(String what, int writable, int readOnly) throws Exception {
    String option = "--is=" + what;
    assertThat(Tools.run("nbdinfo", option, tcp.uri()).status()).isEqualTo(writable);
    assertThat(Tools.run("nbdinfo", option, unix.uri()).status()).isEqualTo(readOnly);
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
