package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** {@code --cache} between real clients and servers, also when the server is killed. */
@Timeout(300)
final class CacheIT {
  private static final int MIB = 1 << 20;
  private static final int SECTOR = 512;

  @TempDir private Path directory;

  private ServeProcess serve(String backend, String... options) throws Exception {
    return ServeProcess.on(directory, backend, options);
  }

  private Path disk(int size) throws IOException {
    Path disk = directory.resolve("disk.img");
    try (FileChannel made =
        FileChannel.open(disk, StandardOpenOption.CREATE, StandardOpenOption.WRITE)) {
      made.write(ByteBuffer.allocate(1), size - 1);
    }
    return disk;
  }

  // The promise.

  @ParameterizedTest(name = "--cache={0}, upstream promises: {1}, --multi-conn-mode={2}")
  @CsvSource({
    "none, false, auto, true",
    "none, false, plugin, false",
    "writeback, false, auto, true",
    "writeback, false, plugin, true",
    "writeback, true, disable, false",
    "writethrough, false, auto, true",
    "writethrough, false, plugin, false",
    "writethrough, true, plugin, true",
    "unsafe, false, plugin, true",
  })
  void clientsSeeTheFlagOfTheCache(
      String cache, boolean upstreamPromises, String mode, boolean shown) throws Exception {
    Tools.need("nbdkit", "nbdinfo");
    try (UpstreamProcess nbdkit =
            UpstreamProcess.nbdkit(
                directory,
                "--filter=multi-conn",
                "memory",
                "1M",
                "multi-conn-mode=" + (upstreamPromises ? "plugin" : "disable"));
        ServeProcess serve = serve(nbdkit.uri(), "--cache=" + cache, "--multi-conn-mode=" + mode)) {
      Tools.Result info = Tools.run("nbdinfo", "--can", "multi-conn", serve.uri());
      assertThat(info.status()).as(info.err()).isEqualTo(shown ? 0 : 2);
      serve.stopQuietly();
    }
  }

  /** The cache has one connection of its own, so one flush there covers all clients. */
  @Test
  void oneFlushUpstreamCoversAllConnections() throws Exception {
    Tools.need("nbdkit");
    Path logFile = directory.resolve("log");
    NbdkitLog log = new NbdkitLog(logFile);
    Path disk = disk(MIB);
    try (UpstreamProcess nbdkit =
            UpstreamProcess.nbdkit(
                directory,
                "--filter=log",
                "--filter=multi-conn",
                "file",
                disk.toString(),
                "multi-conn-mode=disable",
                "logfile=" + logFile);
        ServeProcess serve = serve(nbdkit.uri(), "--cache=writeback")) {
      List<RawClient> clients = List.of(serve.client(), serve.client(), serve.client());
      for (int i = 0; i < clients.size(); i++) {
        clients.get(i).write(i * 100_000L, Bytes.random(i, 10_000));
      }
      clients.getFirst().flush();
      assertThat(log.flushed()).hasSize(1);
      byte[] stored = Files.readAllBytes(disk);
      for (int i = 0; i < clients.size(); i++) {
        assertThat(Arrays.copyOfRange(stored, i * 100_000, i * 100_000 + 10_000))
            .isEqualTo(Bytes.random(i, 10_000));
        clients.get(i).disconnect();
      }
      serve.stopQuietly();
    }
  }

  /** When the server has ended, everything is upstream. */
  @Test
  void unsafeAnswersFlushesWithoutTheUpstream() throws Exception {
    Tools.need("nbdkit");
    Path logFile = directory.resolve("log");
    NbdkitLog log = new NbdkitLog(logFile);
    Path disk = disk(MIB);
    byte[] data = Bytes.random(1, 10_000);
    try (UpstreamProcess nbdkit =
            UpstreamProcess.nbdkit(
                directory, "--filter=log", "file", disk.toString(), "logfile=" + logFile);
        ServeProcess serve = serve(nbdkit.uri(), "--cache=unsafe")) {
      try (RawClient client = serve.client()) {
        client.write(5000, data).flush().flush();
        client.call(0, RawClient.FUA, RawClient.WRITE, 0, 1, (byte) 1).flush();
        assertThat(log.flushed()).isEmpty();
        assertThat(client.read(5000, data.length)).isEqualTo(data);
      }
      serve.stopQuietly();
    }
    byte[] stored = Files.readAllBytes(disk);
    assertThat(Arrays.copyOfRange(stored, 5000, 5000 + data.length)).isEqualTo(data);
    assertThat(stored[0]).isEqualTo((byte) 1);
    assertThat(log.flushed()).isNotEmpty();
  }

  // Data.

  @ParameterizedTest(name = "--cache={0} over {1}")
  @CsvSource({
    "writeback, file",
    "writeback, nbdkit",
    "writeback, memory",
    "writethrough, file",
    "writethrough, nbdkit",
    "unsafe, file",
    "unsafe, nbdkit",
  })
  void imagesThatAreCopiedInAndOutAreTheSame(String cache, String storage) throws Exception {
    Tools.need("nbdcopy", "qemu-img", "nbdkit");
    Path image = directory.resolve("image");
    // Data, zeroes, and an end that is not a full block.
    byte[] content = Bytes.random(5, 24 * MIB + SECTOR);
    Arrays.fill(content, 6 * MIB, 14 * MIB, (byte) 0);
    Files.write(image, content);
    Path disk = disk(content.length);
    Path copy = directory.resolve("copy");
    try (Behind behind = behind(storage, disk, content.length);
        ServeProcess serve =
            serve(behind.uri(), "--cache=" + cache, "--cache-size=2M", "--cache-block-size=16K")) {
      Tools.run("nbdcopy", "--flush", image.toString(), serve.uri()).ok();
      Tools.Result compared =
          Tools.run("qemu-img", "compare", "-f", "raw", "-F", "raw", image.toString(), serve.uri());
      assertThat(compared.ok().out()).contains("identical");
      Tools.run("nbdcopy", serve.uri(), copy.toString()).ok();
      assertThat(Files.mismatch(image, copy)).isEqualTo(-1);
      serve.stopQuietly();
    }
    if (!storage.equals("memory")) {
      assertThat(Files.mismatch(image, disk)).isEqualTo(-1);
    }
  }

  /** Four jobs write, read, flush and verify over a cache of a thirtieth of the disk. */
  @ParameterizedTest(name = "--cache={0} over {1}")
  @CsvSource({
    "writeback, memory",
    "writeback, file",
    "writeback, nbdkit",
    "writethrough, memory",
    "writethrough, file",
    "writethrough, nbdkit",
    "unsafe, nbdkit",
  })
  void fioVerifiesWhatItWroteWhileBlocksAreEvicted(String cache, String storage) throws Exception {
    Tools.need("fio", "nbdkit");
    int size = 64 * MIB;
    Path disk = disk(size);
    Path stats = directory.resolve("stats");
    try (Behind behind = behind(storage, disk, size);
        ServeProcess serve =
            serve(
                behind.uri(),
                "--cache=" + cache,
                "--cache-size=2M",
                "--cache-block-size=16K",
                "--stats=" + stats)) {
      String[] fio =
          Tools.fio(
              serve.uri(),
              "--rw=randrw",
              "--bsrange=512-16k",
              "--numjobs=4",
              "--size=16M",
              "--offset_increment=16M",
              "--iodepth=8",
              "--fsync=64");
      Tools.run(fio).ok();
      serve.stopQuietly();
    }
    assertThat(cacheCount(stats, "misses")).as("what was evicted is read again").isGreaterThan(500);
    assertThat(cacheCount(stats, "hits")).isPositive();
    assertThat(cacheCount(stats, "dirty_bytes")).isZero();
    if (cache.equals("writethrough")) {
      assertThat(cacheCount(stats, "write_backs")).isZero();
    } else {
      assertThat(cacheCount(stats, "write_backs")).isPositive();
    }
  }

  private static long cacheCount(Path stats, String name) throws IOException {
    Matcher found =
        Pattern.compile("\"cache\":\\{[^}]*\"" + name + "\":(\\d+)")
            .matcher(Files.readString(stats));
    assertThat(found.find()).as("%s in %s", name, Files.readString(stats)).isTrue();
    return Long.parseLong(found.group(1));
  }

  /** The storage that is cached, and the process that has it, if there is one. */
  private record Behind(String uri, Optional<UpstreamProcess> process) implements AutoCloseable {
    @Override
    public void close() {
      process.ifPresent(UpstreamProcess::close);
    }
  }

  private Behind behind(String storage, Path disk, long size) throws Exception {
    return switch (storage) {
      case "memory" -> new Behind("memory:" + size, Optional.empty());
      case "file" -> new Behind(disk.toString(), Optional.empty());
      case "nbdkit" -> {
        UpstreamProcess nbdkit = UpstreamProcess.nbdkit(directory, "file", disk.toString());
        yield new Behind(nbdkit.uri(), Optional.of(nbdkit));
      }
      default -> throw new IllegalArgumentException(storage);
    };
  }

  // The end, good and bad.

  @ParameterizedTest
  @ValueSource(strings = {"writeback", "unsafe"})
  void whatNobodyFlushedIsStoredWhenTheServerEnds(String cache) throws Exception {
    Path disk = disk(8 * MIB);
    byte[] data = Bytes.random(3, 3 * MIB);
    try (ServeProcess serve = serve(disk.toString(), "--cache=" + cache);
        RawClient client = serve.client()) {
      client.write(MIB, data);
      serve.stopQuietly();
    }
    byte[] stored = Files.readAllBytes(disk);
    assertThat(Arrays.equals(stored, MIB, 4 * MIB, data, 0, data.length)).isTrue();
  }

  private String[] failing(Path disk, Path whileThere) {
    return new String[] {
      "--filter=error",
      "file",
      disk.toString(),
      "error-pwrite=EIO",
      "error-pwrite-rate=100%",
      "error-pwrite-file=" + whileThere
    };
  }

  @Test
  void aFailedWriteBackFailsTheFlushesOfEveryConnectionAndIsTriedAgain() throws Exception {
    Tools.need("nbdkit");
    Path disk = disk(MIB);
    Path broken = directory.resolve("broken");
    byte[] data = Bytes.random(4, 4096);
    try (UpstreamProcess nbdkit = UpstreamProcess.nbdkit(directory, failing(disk, broken));
        ServeProcess serve = serve(nbdkit.uri(), "--cache=writeback");
        RawClient writer = serve.client();
        RawClient other = serve.client()) {
      Files.createFile(broken);
      writer.write(8192, data);
      other.call(RawClient.EIO, 0, RawClient.FLUSH, 0, 0);
      writer.call(RawClient.EIO, 0, RawClient.FLUSH, 0, 0);
      assertThat(other.read(8192, data.length)).as("it is still there").isEqualTo(data);

      Files.delete(broken);

      other.flush();
      assertThat(Arrays.copyOfRange(Files.readAllBytes(disk), 8192, 8192 + data.length))
          .isEqualTo(data);
      writer.flush();
      serve.stop();
    }
  }

  @Test
  void whatCannotBeWrittenBackInTheEndIsSaidAndTheStatusIsOne() throws Exception {
    Tools.need("nbdkit");
    Path disk = disk(MIB);
    Path broken = directory.resolve("broken");
    try (UpstreamProcess nbdkit = UpstreamProcess.nbdkit(directory, failing(disk, broken));
        ServeProcess serve = serve(nbdkit.uri(), "--cache=writeback");
        RawClient client = serve.client()) {
      client.write(0, Bytes.random(1, 4096)).flush();
      Files.createFile(broken);
      client.write(8192, Bytes.random(2, 12_288));
      serve.signal("TERM");
      assertThat(serve.awaitEnd()).isEqualTo(1);
      assertThat(serve.err()).contains("12288 bytes");
    }
  }

  // Crashes.

  /** A client that writes versions into sectors of its own, counting up. */
  private static final class Writer implements Runnable {
    private static final int SLOTS = 64;
    private static final int STRIDE = 24 * 1024 + SECTOR;

    final AtomicIntegerArray begun = new AtomicIntegerArray(SLOTS);
    final AtomicIntegerArray answered = new AtomicIntegerArray(SLOTS);
    private final RawClient client;
    private final Random random;
    private final int number;

    Writer(RawClient client, long seed, int number) {
      this.client = client;
      this.random = new Random(seed);
      this.number = number;
    }

    /** Places the sectors of different writers in the same blocks. */
    long offset(int slot) {
      return (long) slot * STRIDE + (long) number * SECTOR;
    }

    @Override
    public void run() {
      try {
        while (true) {
          int slot = random.nextInt(SLOTS);
          int version = begun.incrementAndGet(slot);
          client.write(offset(slot), sector(version));
          answered.set(slot, version);
        }
      } catch (IOException | AssertionError killed) {
        // The versions begun and answered are known.
      }
    }

    static byte[] sector(int version) {
      ByteBuffer sector = ByteBuffer.allocate(SECTOR);
      while (sector.hasRemaining()) {
        sector.putInt(version);
      }
      return sector.array();
    }
  }

  /** A client that flushes, and keeps the versions answered before the last successful flush. */
  private static final class Flusher implements Runnable {
    private static final long ENOUGH = 100;

    final List<int[]> durable = new ArrayList<>();
    private final RawClient client;
    private final List<Writer> writers;
    private final CountDownLatch flushed;

    Flusher(RawClient client, List<Writer> writers, CountDownLatch flushed) {
      this.client = client;
      this.writers = writers;
      this.flushed = flushed;
      writers.forEach(writer -> durable.add(new int[Writer.SLOTS]));
    }

    /** Counts the sectors that have a durable version. */
    long covered() {
      return durable.stream().flatMapToInt(Arrays::stream).filter(version -> version > 0).count();
    }

    @Override
    public void run() {
      try {
        while (true) {
          List<int[]> answered = new ArrayList<>();
          for (Writer writer : writers) {
            int[] versions = new int[Writer.SLOTS];
            Arrays.setAll(versions, writer.answered::get);
            answered.add(versions);
          }
          client.flush();
          for (int i = 0; i < answered.size(); i++) {
            durable.set(i, answered.get(i));
          }
          if (covered() > ENOUGH) {
            flushed.countDown();
          }
        }
      } catch (IOException | AssertionError killed) {
        // The versions kept have to be there.
      }
    }
  }

  /** A small cache evicts all the time; in a large one almost every write waits for the flush. */
  @ParameterizedTest(name = "--cache={0}, {1}, over nbdkit {2}, seed {3}")
  @CsvSource({
    "writeback, 512K, memory, 1",
    "writeback, 4M, memory, 2",
    "writeback, 256K, memory, 3",
    "writeback, 512K, file, 4",
    "writeback, 4M, file, 5",
    "writethrough, 512K, memory, 6",
  })
  void whatWasFlushedIsThereAfterTheServerWasKilled(
      String cache, String size, String plugin, long seed) throws Exception {
    Tools.need("nbdkit");
    Random random = new Random(seed);
    Path disk = disk(4 * MIB);
    try (UpstreamProcess nbdkit =
        plugin.equals("memory")
            ? UpstreamProcess.nbdkit(
                directory, "--filter=multi-conn", "memory", "4M", "multi-conn-mode=disable")
            : UpstreamProcess.nbdkit(directory, "file", disk.toString())) {
      List<Writer> writers = new ArrayList<>();
      Flusher flusher;
      try (ServeProcess serve =
          serve(
              nbdkit.uri(), "--cache=" + cache, "--cache-size=" + size, "--cache-block-size=16K")) {
        for (int i = 0; i < 4; i++) {
          writers.add(new Writer(serve.client(), random.nextLong(), i));
        }
        CountDownLatch enough = new CountDownLatch(5 + random.nextInt(40));
        flusher = new Flusher(serve.client(), writers, enough);
        List<Thread> threads = new ArrayList<>();
        writers.forEach(writer -> threads.add(Thread.ofPlatform().start(writer)));
        threads.add(Thread.ofPlatform().start(flusher));
        Eventually.await(enough);
        serve.signal("KILL");
        serve.awaitEnd();
        for (Thread thread : threads) {
          thread.join();
        }
      }
      assertStored(nbdkit, writers, flusher);
    }
  }

  private static void assertStored(UpstreamProcess nbdkit, List<Writer> writers, Flusher flusher)
      throws IOException {
    try (RawClient direct = RawClient.connect(nbdkit.address())) {
      direct.enter("");
      for (int i = 0; i < writers.size(); i++) {
        Writer writer = writers.get(i);
        for (int slot = 0; slot < Writer.SLOTS; slot++) {
          byte[] stored = direct.read(writer.offset(slot), SECTOR);
          int version = ByteBuffer.wrap(stored).getInt();
          assertThat(stored).as("a sector is written whole").isEqualTo(Writer.sector(version));
          assertThat(version)
              .as("writer %d, slot %d", i, slot)
              .isBetween(flusher.durable.get(i)[slot], writer.begun.get(slot));
        }
      }
      direct.disconnect();
    }
  }
}
