package nbd.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.tinylog.Level;
import org.tinylog.core.LogEntry;
import org.tinylog.runtime.PreciseTimestamp;

/** The log's lines, as users and their programs read them. */
final class LogWriterTest {
  private static final String LINE =
      "\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d\\.\\d{3}[+-]\\d\\d:\\d\\d nbd-multiconn: ";

  private static String text(boolean stacks, Level level, String message, Throwable failure) {
    LogEntry entry =
        new LogEntry(
            new PreciseTimestamp(),
            null,
            null,
            null,
            null,
            null,
            -1,
            null,
            level,
            message,
            failure);
    return new LogWriter(Map.of("stacks", "" + stacks)).text(entry);
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void anEntryIsOneLineWithDateTimeAndZoneInEveryMode(boolean stacks) {
    assertThat(text(stacks, Level.WARN, "a client left", null))
        .matches(LINE + "WARN  a client left\n");
    assertThat(text(stacks, Level.ERROR, "it failed", null)).matches(LINE + "ERROR it failed\n");
  }

  @Test
  void onlyVerboseLogsHaveStacks() {
    IOException failure = new IOException("outer", new IllegalStateException("in\nner"));
    assertThat(text(false, Level.ERROR, "it failed", failure)).hasLineCount(1);
    assertThat(text(true, Level.ERROR, "it failed", failure))
        .contains(
            "  java.io.IOException: outer\n",
            "    at nbd.cli.LogWriterTest",
            "  caused by java.lang.IllegalStateException: in?ner\n");
  }

  @Test
  void nobodyForgesALine() {
    assertThat(text(false, Level.INFO, "name \"a\n2026-01-01 ERROR b\u0085c\u202e\"", null))
        .hasLineCount(1)
        .endsWith("name \"a?2026-01-01 ERROR b?c?\"\n");
  }
}
