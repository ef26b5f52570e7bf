package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** {@code --fua} between real clients and a real server behind. */
@Timeout(300)
final class FuaIT {
  @TempDir private Path directory;

  private ServeProcess serve(String backend, String... options) throws Exception {
    return ServeProcess.on(directory, backend, options);
  }

  private static boolean can(ServeProcess serve, String what) throws Exception {
    Tools.Result result = Tools.run("nbdinfo", "--can", what, serve.uri());
    assertThat(result.status()).as(result.err()).isIn(0, 2);
    return result.status() == 0;
  }

  private static long count(Path log, String pattern) throws IOException {
    return Files.readString(log).lines().filter(line -> line.matches(pattern)).count();
  }

  /** A client writes with FUA if that is offered, writes without, and flushes. */
  @ParameterizedTest(name = "--fua={0}, upstream {1}")
  @CsvSource({
    "pass, both, true, 1, 1",
    "pass, flush, true, 0, 2",
    "none, both, false, 0, 1",
    "emulate, both, true, 0, 2",
    "native, both, true, 1, 1",
    "native, flush, true, 0, 2",
    "force, both, true, 2, 0",
    "force, flush, true, 0, 2",
    "discard, both, true, 0, 0",
  })
  void theUpstreamIsAskedForThis(
      String mode, String upstream, boolean offered, int fuas, int flushes) throws Exception {
    Tools.need("nbdkit", "nbdinfo");
    Path log = directory.resolve("log");
    List<String> arguments = new ArrayList<>(List.of("--filter=log", "memory", "1M"));
    arguments.add("logfile=" + log);
    if (upstream.equals("flush")) { // The fua filter hides FUA.
      arguments.add(1, "--filter=fua");
    }
    try (UpstreamProcess nbdkit =
            UpstreamProcess.nbdkit(directory, arguments.toArray(String[]::new));
        ServeProcess serve = serve(nbdkit.uri(), "--fua=" + mode)) {
      assertThat(can(serve, "fua")).isEqualTo(offered);
      assertThat(can(serve, "flush")).isTrue();
      try (RawClient client = serve.client()) {
        if (offered) {
          client.call(0, RawClient.FUA, RawClient.WRITE, 0, 512, new byte[512]);
        }
        client.write(4096, new byte[512]).flush();
        assertThat(count(log, ".* Write id=.* fua=1 .*\\.\\.\\.")).as("FUA").isEqualTo(fuas);
        assertThat(count(log, ".* Flush id=.*\\.\\.\\.")).as("flushes").isEqualTo(flushes);
      }
      serve.stop();
      assertThat(serve.err().contains("--fua=discard: flushes and FUA are dropped"))
          .as("the warning in %s", serve.err())
          .isEqualTo(mode.equals("discard"));
    }
  }

  /** One client reads, another writes, and none flushes. */
  @Test
  void aForcedWriteIsSeenByEveryConnectionWithoutAFlush() throws Exception {
    for (String mode : List.of("force", "pass")) {
      try (ServeProcess serve = serve("memory:1M", "--connection-cache", "--fua=" + mode);
          RawClient reader = serve.client();
          RawClient writer = serve.client()) {
        reader.read(0, 512);
        writer.write(0, (byte) 7);
        assertThat(reader.read(0, 1)[0]).isEqualTo((byte) (mode.equals("force") ? 7 : 0));
        writer.flush();
        serve.stopQuietly();
      }
    }
  }

  @ParameterizedTest
  @CsvSource({"native", "force", "emulate"})
  void aClientIsRefusedWhereTheUpstreamCanDoNeither(String mode) throws Exception {
    Tools.need("nbdkit");
    try (UpstreamProcess nbdkit = UpstreamProcess.nbdkit(directory, neither());
        ServeProcess serve = serve(nbdkit.uri(), "--multi-conn-mode=plugin", "--fua=" + mode);
        RawClient client = RawClient.connect(serve.address())) {
      client.hello(3).option(RawClient.GO, RawClient.infoData(""));
      assertThat(client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN))
          .contains("flush", "--fua=pass");
      serve.stop();
    }
  }

  /** The storage has neither. */
  @Test
  void discardOffersAndDropsBoth() throws Exception {
    Tools.need("nbdkit", "nbdinfo");
    try (UpstreamProcess nbdkit = UpstreamProcess.nbdkit(directory, neither());
        ServeProcess serve = serve(nbdkit.uri(), "--fua=discard")) {
      assertThat(can(serve, "fua")).isTrue();
      assertThat(can(serve, "flush")).isTrue();
      assertThat(can(serve, "multi-conn")).as("nothing to emulate it with").isFalse();
      try (RawClient client = serve.client()) {
        client.call(0, RawClient.FUA, RawClient.WRITE, 0, 512, new byte[512]).flush();
      }
      serve.stop();
    }
  }

  private static String[] neither() {
    return new String[] {
      "eval",
      "get_size=echo 1M",
      "pread=dd if=/dev/zero count=$3 iflag=count_bytes status=none",
      "pwrite=cat > /dev/null"
    };
  }
}
