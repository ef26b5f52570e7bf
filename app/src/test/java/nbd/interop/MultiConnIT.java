package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The data that several connections of a real client read in each mode. */
@Timeout(300)
final class MultiConnIT {
  /** Three connections: b has read before a writes, and only c flushes. */
  private static final String STALE_READER =
      """
      hs = [nbd.NBD() for _ in range(3)]
      for h in hs: h.connect_uri(uri)
      a, b, c = hs
      b.pread(4096, 0)
      a.pwrite(b'x' * 4096, 0)
      before = b.pread(1, 0)
      c.flush()
      after = b.pread(1, 0)
      print(int(a.can_multi_conn()), before.replace(b'\\0', b'-').decode(), \
      after.replace(b'\\0', b'-').decode())
      """;

  private static Tools.Result script(String uri, String script) throws Exception {
    return Tools.run("nbdsh", "-c", "uri = \"" + uri + "\"", "-c", script);
  }

  /** The flag, and the reader's data before and after another connection's flush. */
  @ParameterizedTest
  @CsvSource({
    "--connection-cache, auto, 1 - x",
    "--connection-cache, emulate, 1 - x",
    "--connection-cache, disable, 0 - -",
    "--connection-cache, plugin, 0 - -",
    "--connection-cache, unsafe, 1 - -",
    "--fua=pass, auto, 1 x x",
    "--fua=pass, emulate, 1 x x",
    "--fua=pass, disable, 0 x x",
    "--fua=pass, plugin, 1 x x",
    "--fua=pass, unsafe, 1 x x",
  })
  void modesWithPrivateCachesAndWithSharedMemory(String option, String mode, String seen)
      throws Exception {
    try (ServeProcess serve =
        ServeProcess.ready("-p", "0", option, "--multi-conn-mode=" + mode, "memory:1M")) {
      assertThat(script(serve.uri(), STALE_READER).ok().out().strip()).isEqualTo(seen);
      serve.stop();
    }
  }

  @ParameterizedTest
  @CsvSource({"--max-connections=1", "--thread-model=serialize-connections"})
  void whereOneClientIsServedAtATimeTheFlagIsNotShown(String option) throws Exception {
    Tools.Result result =
        ServeProcess.run(
            option,
            "--multi-conn-mode=emulate",
            "--run=nbdinfo --can multi-conn \"$uri\" || echo no",
            "memory:1M");
    assertThat(result.ok().out()).isEqualTo("no\n");
  }

  @Test
  void delaysAndErrorsReachTheClient() throws Exception {
    try (ServeProcess serve =
        ServeProcess.ready(
            "-p",
            "0",
            "--error-read=1:ENOMEM",
            "--error-flush=1",
            "--delay-write=1ms",
            "memory:1M")) {
      String errors =
          script(
                  serve.uri(),
                  """
                  h = nbd.NBD()
                  h.connect_uri(uri)
                  h.pwrite(b'x' * 512, 0)
                  for command in (lambda: h.pread(512, 0), h.flush):
                      try: command()
                      except nbd.Error as error: print(error.errno)
                  """)
              .ok()
              .out();
      assertThat(errors.lines()).containsExactly("ENOMEM", "EIO");
      serve.stop();
    }
  }
}
