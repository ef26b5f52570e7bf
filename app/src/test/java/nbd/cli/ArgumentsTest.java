package nbd.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import nbd.file.FileBackend;
import nbd.file.FileSettings;
import nbd.filter.Statistics;
import nbd.filter.StatisticsFilter;
import nbd.memory.MemoryBackend;
import nbd.memory.NullBackend;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.server.Server;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.testing.FakeBackend;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The values of options, the argument BACKEND, and the report of {@code --stats}. */
final class ArgumentsTest {
  @TempDir private Path directory;

  @Test
  void sizesAreBytesOrPowersOf1024() {
    Map<String, Long> sizes =
        Map.of(
            "0", 0L, "1", 1L, "4096", 4096L, "1K", 1024L, "1k", 1024L, "3M", 3L << 20, "8G",
            8L << 30, "2t", 2L << 40, "1P", 1L << 50, "7E", 7L << 60);
    sizes.forEach((text, size) -> assertThat(OptionValues.size(text)).as(text).isEqualTo(size));
    assertThat(OptionValues.size("8191P")).isEqualTo(8191L << 50);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "K",
        "-1",
        "1.5G",
        "1 G",
        "1KB",
        "1KiB",
        "0x10",
        "8E",
        "9223372036854775808",
        "+1",
        "9999999999999999999",
        "8192P"
      })
  void whatIsNoSizeIsSaidToBeNone(String text) {
    assertThatThrownBy(() -> OptionValues.size(text))
        .isInstanceOf(UsageException.class)
        .hasMessageContaining("\"" + text + "\"");
  }

  @Test
  void aSizeThatNoNumberCanHoldIsSaidToBeTooLarge() {
    assertThat(OptionValues.size("9223372036854775807")).isEqualTo(Long.MAX_VALUE);
    for (String text : new String[] {"9223372036854775808", "8E", "8192P", "9".repeat(100)}) {
      assertThatThrownBy(() -> OptionValues.size(text)).as(text).hasMessageContaining("too large");
    }
  }

  @Test
  void durationsHaveUnits() {
    Map<String, Duration> durations =
        Map.of(
            "10s", Duration.ofSeconds(10),
            "10", Duration.ofSeconds(10),
            "250ms", Duration.ofMillis(250),
            "2m", Duration.ofMinutes(2),
            "1h", Duration.ofHours(1),
            "0", Duration.ZERO,
            "999999999h", Duration.ofHours(999_999_999));
    durations.forEach((text, value) -> assertThat(OptionValues.duration(text)).isEqualTo(value));
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "s", "-1s", "1.5s", "1 s", "1us", "1d", "10S", "1234567890"})
  void whatIsNoDurationIsSaidToBeNone(String text) {
    assertThatThrownBy(() -> OptionValues.duration(text))
        .isInstanceOf(UsageException.class)
        .hasMessageContaining("\"" + text + "\"");
  }

  @Test
  void requestsInFlightMayTakeAQuarterOfTheMemoryButNeverTooLittle() {
    assertThat(Server.defaultMemory(8L << 30, 4L << 30)).isEqualTo(1L << 30);
    assertThat(Server.defaultMemory(2L << 30, 4L << 30)).isEqualTo(512L << 20);
    assertThat(Server.defaultMemory(64L << 20, 64L << 20)).isEqualTo(Server.MINIMUM_MEMORY);
  }

  @Test
  void theBackendIsNamedByItsKind() throws IOException {
    Path file = Files.write(directory.resolve("memory"), new byte[512]);
    assertThat(size("memory:1G", MemoryBackend.class)).isEqualTo(1 << 30);
    assertThat(size("null:8191P", NullBackend.class)).isEqualTo(8191L << 50);
    assertThat(size("file:" + file, FileBackend.class)).isEqualTo(512);
    assertThat(size(file.toString(), FileBackend.class)).isEqualTo(512);
  }

  @Test
  void aFileWithAColonInItsNameIsServed() throws IOException {
    Path file = Files.write(directory.resolve("a:b"), new byte[100]);
    assertThat(size(file.toString(), FileBackend.class)).isEqualTo(100);
    assertThat(size("file:" + file, FileBackend.class)).isEqualTo(100);
  }

  private static long size(String argument, Class<?> type) throws IOException {
    try (Backend backend =
            BackendArgument.open(
                argument,
                FileSettings.DEFAULT,
                new UpstreamOptions(),
                new RbdOptions().settings());
        Handle handle = backend.open("", false)) {
      assertThat(backend).isInstanceOf(type);
      return handle.size();
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"", "file:", "memory:", "memory:x", "null:-1", "memory:17P", "null:8192P", "a\0b"})
  void wrongBackendsAreWrongUsage(String argument) {
    assertThatThrownBy(
            () ->
                BackendArgument.open(
                    argument,
                    FileSettings.DEFAULT,
                    new UpstreamOptions(),
                    new RbdOptions().settings()))
        .isInstanceOf(UsageException.class);
  }

  @Test
  void aMissingFileIsAFailure() {
    assertThatThrownBy(
            () ->
                BackendArgument.open(
                    directory + "/no:such",
                    FileSettings.DEFAULT,
                    new UpstreamOptions(),
                    new RbdOptions().settings()))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("does not exist");
  }

  private StatisticsReport report(boolean hasCache) throws IOException {
    return StatisticsReport.to(directory.resolve("stats"), hasCache);
  }

  /** Flushes a number of times, and trims with FUA as often as that. */
  private static void count(Statistics statistics, int flushes, int fuas) throws IOException {
    try (Handle handle = new StatisticsFilter(new FakeBackend(10), statistics).open("", false)) {
      for (int i = 0; i < flushes; i++) {
        handle.flush();
      }
      for (int i = 0; i < fuas; i++) {
        handle.trim(0, 1, CommandFlags.of(CommandFlag.FUA));
      }
    }
  }

  @Test
  void statisticsAreJson() throws IOException {
    StatisticsReport report = report(false);
    String zeroes =
        Stream.of(
                "read,write,flush,fua,trim,zero,cache,extents,read_bytes,write_bytes,error,open"
                    .split(","))
            .map(name -> "\"" + name + "\":0")
            .collect(Collectors.joining(","));
    assertThat(report.json())
        .isEqualTo(
            "{\"client\":{%s},\"backend\":{%s},\"flush_amplification\":null}\n"
                .formatted(zeroes, zeroes));
    count(report.client(), 1, 2);
    count(report.backend(), 5, 0);
    assertThat(report.json())
        .contains("\"flush\":1,\"fua\":2,\"trim\":2")
        .endsWith("\"flush_amplification\":1.667}\n");
    report.write();
    assertThat(directory.resolve("stats")).hasContent(report.json());
  }

  @Test
  void statisticsThatCannotBeWrittenAreSaidSo() throws IOException {
    StatisticsReport report = report(false);
    Files.delete(report.file());
    Files.createDirectory(report.file());
    assertThatThrownBy(report::write)
        .isInstanceOf(IOException.class)
        .hasMessageContainingAll("--stats", report.file().toString());
  }

  @Test
  void aCacheIsCountedBetweenClientsAndBackend() throws IOException {
    assertThat(report(true).json())
        .contains(
            "},\"cache\":{\"hits\":0,\"misses\":0,\"write_backs\":0,\"dirty_bytes\":0},\"backend\":{");
  }

  @Test
  void forcedWritesAreNoFlushesThatClientsSent() throws IOException {
    StatisticsReport report = report(false);
    count(report.client(), 2, 0);
    count(report.backend(), 1, 3);
    assertThat(report.json()).endsWith("\"flush_amplification\":0.500}\n");
  }
}
