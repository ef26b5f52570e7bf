package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What several connections of a real client see in each mode, where caches are not shared. */
@Timeout(120)
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

  @TempDir private Path directory;

  private static Tools.Result script(String uri, String script) throws Exception {
    return Tools.run("nbdsh", "-c", "uri = \"" + uri + "\"", "-c", script);
  }

  @ParameterizedTest
  @CsvSource({
    // with private caches: flag, then what the reader sees before and after another's flush
    "auto, 1 - x",
    "emulate, 1 - x",
    "disable, 0 - -",
    "plugin, 0 - -",
    "unsafe, 1 - -",
  })
  void modesWithPrivateCaches(String mode, String seen) throws Exception {
    try (ServeProcess serve =
        ServeProcess.ready(
            "-p", "0", "--connection-cache", "--multi-conn-mode=" + mode, "memory:1M")) {
      assertThat(script(serve.uri(), STALE_READER).ok().out().strip()).isEqualTo(seen);
      serve.stop();
    }
  }

  @ParameterizedTest
  @CsvSource({
    // one memory for all: who reads sees what was written; the flag is the mode's
    "auto, 1 x x",
    "emulate, 1 x x",
    "disable, 0 x x",
    "plugin, 1 x x",
    "unsafe, 1 x x",
  })
  void modesWithSharedMemory(String mode, String seen) throws Exception {
    try (ServeProcess serve =
        ServeProcess.ready("-p", "0", "--multi-conn-mode=" + mode, "memory:1M")) {
      assertThat(script(serve.uri(), STALE_READER).ok().out().strip()).isEqualTo(seen);
      serve.stop();
    }
  }

  /** Scenario S2 of the plan, with four connections; the counts are those of its table. */
  @ParameterizedTest
  @CsvSource({"off, 12", "connection, 4", "fast, 8"})
  void emulatedFlushesReachTheBackendAsOftenAsTheTableSays(String level, int flushes)
      throws Exception {
    Path stats = directory.resolve("stats.json");
    try (ServeProcess serve =
        ServeProcess.ready(
            "-p",
            "0",
            "--connection-cache",
            "--multi-conn-mode=emulate",
            "--multi-conn-track-dirty=" + level,
            "--stats=" + stats,
            "memory:1M")) {
      script(
              serve.uri(),
              """
              h = [nbd.NBD() for _ in range(4)]
              for one in h: one.connect_uri(uri)
              h[0].pread(512, 0)
              h[1].zero(512, 0)
              h[3].flush()
              h[2].zero(512, 0)
              h[0].pread(512, 0)
              h[3].flush()
              h[3].flush()
              """)
          .ok();
      serve.stop();
    }
    assertThat(Files.readString(stats))
        .contains("\"flush\":3,")
        .containsPattern("\"backend\":\\{[^}]*\"flush\":" + flushes + ",")
        .contains("\"flush_amplification\":%.3f".formatted(flushes / 3.0));
  }

  @Test
  void anotherConnectionSeesAForcedWriteWithoutAFlush() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-p", "0", "--connection-cache", "memory:1M")) {
      String seen =
          script(
                  serve.uri(),
                  """
                  a, b = nbd.NBD(), nbd.NBD()
                  a.connect_uri(uri)
                  b.connect_uri(uri)
                  b.pread(4096, 0)
                  a.pwrite(b'x' * 4096, 0, nbd.CMD_FLAG_FUA)
                  print(b.pread(1, 0).decode())
                  """)
              .ok()
              .out();
      assertThat(seen.strip()).isEqualTo("x");
      serve.stop();
    }
  }

  @Test
  void whatAClosedConnectionLeftUnflushedIsThere() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-p", "0", "--connection-cache", "memory:1M")) {
      String seen =
          script(
                  serve.uri(),
                  """
                  a, b = nbd.NBD(), nbd.NBD()
                  a.connect_uri(uri)
                  b.connect_uri(uri)
                  b.pread(4096, 0)
                  a.pwrite(b'x' * 4096, 0)
                  a.shutdown()
                  b.flush()
                  print(b.pread(1, 0).decode())
                  """)
              .ok()
              .out();
      assertThat(seen.strip()).isEqualTo("x");
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

  @ParameterizedTest
  @CsvSource({
    "--multi-conn-mode=safe, 'auto, emulate, disable, plugin, unsafe'",
    "--multi-conn-track-dirty=all, 'connection, fast, off'",
    "--thread-model=none, 'serialize-requests, parallel'",
    "--error-read=2, 'from 0 to 1'",
    "--error-read=0.5:EWRONG, 'EPERM, EIO'",
  })
  void aWrongValueIsAUsageErrorThatNamesTheRightOnes(String option, String named) throws Exception {
    Tools.Result result = ServeProcess.run(option, "memory:1M");
    assertThat(result.status()).isEqualTo(2);
    assertThat(result.err()).hasLineCount(1).contains(option.substring(0, option.indexOf('=')));
    assertThat(result.err()).contains(named);
  }
}
