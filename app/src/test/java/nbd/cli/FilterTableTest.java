package nbd.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.function.UnaryOperator;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import nbd.cache.CacheMode;
import nbd.cache.CacheSettings;
import nbd.filter.FuaMode;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdException;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.testing.FakeBackend;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * The tables in the manual page, of the features that the filters offer to clients and the requests
 * that reach the storage. Each row is played: three connections have each written, and then one of
 * them flushes, or writes, with or without FUA.
 */
@Timeout(300)
final class FilterTableTest {
  private static final Path MANUAL = Path.of("../man/nbd-multiconn.adoc");
  private static final int CONNECTIONS = 3;
  private static final int SECTOR = 512;

  /** A distance at which no two sectors are in one block of a cache. */
  private static final int SECTORS_BETWEEN = 64;

  private static final Capabilities STORAGE =
      Capabilities.of(Capability.FUA, Capability.WRITE, Capability.FLUSH);

  /** The client's request after the connections have written. */
  @FunctionalInterface
  private interface Act {
    void on(Handle handle) throws IOException;
  }

  private static final int EXTRA_SECTOR = CONNECTIONS * SECTORS_BETWEEN;

  private static final Act FLUSH = Handle::flush;
  private static final Act WRITE = handle -> write(handle, EXTRA_SECTOR, CommandFlags.NONE);
  private static final Act FUA_WRITE =
      handle -> write(handle, EXTRA_SECTOR, CommandFlags.of(CommandFlag.FUA));

  private static void write(Handle handle, int sector, CommandFlags flags) throws IOException {
    handle.write(ByteBuffer.allocate(SECTOR).put(0, (byte) 1), (long) sector * SECTOR, flags);
  }

  private static boolean isDurable(FakeBackend storage, int sector) {
    return storage.durable()[sector * SECTOR] == 1;
  }

  private static int forced(FakeBackend storage) {
    return (int) storage.calls().stream().filter(call -> call.flags().has(CommandFlag.FUA)).count();
  }

  /**
   * The effect of an act.
   *
   * @param storage the requests that reached the storage
   * @param durable the connections whose writes are durable
   * @param isExtraDurable whether the act's own write is durable
   */
  private record Outcome(String storage, List<Integer> durable, boolean isExtraDurable) {
    String covers() {
      if (durable.size() == CONNECTIONS) {
        return "all";
      }
      return durable.isEmpty() ? "nothing" : durable.equals(List.of(0)) ? "its own" : "" + durable;
    }
  }

  private static FilterStack.Choice choice(
      FuaMode fua, MultiConnMode multiConn, Optional<CacheMode> cache) {
    return new FilterStack.Choice(
        fua,
        MultiConnSettings.DEFAULT.with(multiConn),
        cache.map(mode -> new CacheSettings(mode, 1 << 20, CacheSettings.MINIMUM_BLOCK_SIZE)),
        UnaryOperator.identity(),
        UnaryOperator.identity(),
        false,
        Optional.empty());
  }

  private static FakeBackend storage(Capabilities capabilities) {
    return new FakeBackend(4096 * SECTOR, BlockSizes.DEFAULT, capabilities);
  }

  private static Outcome play(FilterStack.Choice choice, Capabilities storage, Act act)
      throws IOException {
    FakeBackend fake = storage(storage);
    FilterStack stack = new FilterStack(fake, choice);
    List<Handle> handles = new ArrayList<>();
    for (int i = 0; i < CONNECTIONS; i++) {
      handles.add(stack.backend().open("", false));
    }
    for (int i = 0; i < CONNECTIONS; i++) {
      write(handles.get(i), i * SECTORS_BETWEEN, CommandFlags.NONE);
    }
    fake.forgetCalls();
    act.on(handles.getFirst());
    Outcome outcome =
        new Outcome(
            counts(forced(fake), fake.count(Command.FLUSH)),
            Stream.iterate(0, i -> i + 1)
                .limit(CONNECTIONS)
                .filter(i -> isDurable(fake, i * SECTORS_BETWEEN))
                .toList(),
            isDurable(fake, EXTRA_SECTOR));
    for (Handle handle : handles) {
      handle.close();
    }
    stack.backend().close();
    return outcome;
  }

  private static String counts(int fuas, int flushes) {
    List<String> parts = new ArrayList<>();
    if (fuas > 0) {
      parts.add(fuas == 1 ? "FUA" : fuas + " FUA");
    }
    if (flushes > 0) {
      parts.add(flushes == 1 ? "1 flush" : flushes + " flushes");
    }
    return parts.isEmpty() ? "nothing" : String.join(", ", parts);
  }

  private static String name(Enum<?> value) {
    return value.name().toLowerCase(Locale.ROOT);
  }

  private static Capabilities shown(FilterStack.Choice choice, Capabilities storage)
      throws IOException {
    try (Handle handle = new FilterStack(storage(storage), choice).backend().open("", false)) {
      return handle.capabilities();
    }
  }

  // Several connections, and caches.

  private static List<String> promises() throws IOException {
    List<String> rows = new ArrayList<>();
    List<Optional<CacheMode>> caches = new ArrayList<>();
    caches.add(Optional.empty());
    Arrays.stream(CacheMode.values()).map(Optional::of).forEach(caches::add);
    for (Optional<CacheMode> cache : caches) {
      for (boolean multiConn : new boolean[] {false, true}) {
        Capabilities storage = multiConn ? STORAGE.with(Capability.MULTI_CONN) : STORAGE;
        Map<String, List<String>> modes = new LinkedHashMap<>();
        for (MultiConnMode mode : MultiConnMode.values()) {
          modes
              .computeIfAbsent(
                  promise(choice(FuaMode.PASS, mode, cache), storage), row -> new ArrayList<>())
              .add(name(mode));
        }
        modes.forEach(
            (row, names) ->
                rows.add(
                    "|%s |%s |%s |%s"
                        .formatted(
                            cache.map(FilterTableTest::name).orElse("none"),
                            multiConn ? "yes" : "no",
                            String.join(", ", names),
                            row)));
      }
    }
    return rows;
  }

  private static String promise(FilterStack.Choice choice, Capabilities storage)
      throws IOException {
    Capabilities shown = shown(choice, storage);
    assertThat(shown.has(Capability.FLUSH)).isTrue();
    assertThat(shown.has(Capability.FUA)).isTrue();
    Outcome flush = play(choice, storage, FLUSH);
    Outcome forced = play(choice, storage, FUA_WRITE);
    boolean isUnsafe =
        choice.cache().map(settings -> settings.mode() == CacheMode.UNSAFE).orElse(false);
    assertThat(forced.isExtraDurable()).as("a write with FUA is durable").isEqualTo(!isUnsafe);
    return "%s |%s |%s |%s"
        .formatted(
            shown.has(Capability.MULTI_CONN) ? "yes" : "no",
            flush.covers(),
            flush.storage(),
            forced.storage());
  }

  // FUA.

  private static List<String> forced() throws IOException {
    Map<String, Capabilities> storages = new LinkedHashMap<>();
    storages.put("FUA and flush", STORAGE);
    storages.put("flush", STORAGE.without(Capability.FUA));
    storages.put("neither", STORAGE.without(Capability.FUA).without(Capability.FLUSH));
    List<String> rows = new ArrayList<>();
    for (FuaMode fua : FuaMode.values()) {
      Map<String, List<String>> same = new LinkedHashMap<>();
      for (MultiConnMode mode : List.of(MultiConnMode.PLUGIN, MultiConnMode.EMULATE)) {
        storages.forEach(
            (name, has) -> {
              boolean cannotBe = name.equals("neither") || fua == FuaMode.DISCARD;
              if (mode == MultiConnMode.EMULATE && cannotBe) {
                return;
              }
              String row = forced(choice(fua, mode, Optional.empty()), has);
              same.computeIfAbsent(row, key -> new ArrayList<>())
                  .add(mode == MultiConnMode.EMULATE ? name + " (emulate)" : name);
            });
      }
      same.forEach(
          (row, names) ->
              rows.add("|%s |%s |%s".formatted(name(fua), String.join("; ", names), row)));
    }
    return rows;
  }

  private static String forced(FilterStack.Choice choice, Capabilities storage) {
    try {
      Capabilities shown = shown(choice, storage);
      boolean hasFua = shown.has(Capability.FUA);
      boolean hasFlush = shown.has(Capability.FLUSH);
      return "%s |%s |%s |%s"
          .formatted(
              hasFua ? hasFlush ? "both" : "FUA" : hasFlush ? "flush" : "neither",
              play(choice, storage, WRITE).storage(),
              hasFua ? play(choice, storage, FUA_WRITE).storage() : "-",
              hasFlush ? play(choice, storage, FLUSH).storage() : "-");
    } catch (NbdException refused) {
      return "refused | | |";
    } catch (IOException failure) {
      throw new java.io.UncheckedIOException(failure);
    }
  }

  @Test
  void theManualSaysWhatCachesAndModesPromise() throws IOException {
    List<String> rows = promises();
    assertThat(rowsOf("promises")).as(pasteable(rows)).isEqualTo(rows);
  }

  @Test
  void theManualSaysWhatBecomesOfFua() throws IOException {
    List<String> rows = forced();
    assertThat(rowsOf("fua")).as(pasteable(rows)).isEqualTo(rows);
  }

  private static String pasteable(List<String> rows) {
    return "the rows as they have to be:\n" + String.join("\n", rows) + "\n";
  }

  /** Reads the rows of the table below a comment that names this test. */
  private static List<String> rowsOf(String table) throws IOException {
    List<String> lines = Files.readAllLines(MANUAL);
    int start = lines.indexOf("// Checked by FilterTableTest: " + table);
    assertThat(start).as("the table " + table).isNotNegative();
    return lines.stream()
        .skip(start)
        .dropWhile(line -> !line.equals("|==="))
        .skip(2)
        .takeWhile(line -> !line.equals("|==="))
        .filter(line -> !line.isBlank())
        .collect(Collectors.toList());
  }
}
