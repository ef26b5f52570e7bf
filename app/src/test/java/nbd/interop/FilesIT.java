package nbd.interop;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.RandomAccessFile;
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
import org.junit.jupiter.params.provider.ValueSource;

/** Image files and directories of them, together with other programs that use the same files. */
@Timeout(300)
final class FilesIT {
  private static final int MIB = 1 << 20;

  @TempDir private Path directory;
  private Path disk;
  private String socket;

  @BeforeEach
  void create() throws IOException {
    disk = sparse("disk.img", 8 * MIB);
    socket = directory.resolve("socket").toString();
  }

  private Path sparse(String name, long size) throws IOException {
    Path file = directory.resolve(name);
    try (RandomAccessFile made = new RandomAccessFile(file.toFile(), "rw")) {
      made.setLength(size);
    }
    return file;
  }

  private static long allocated(Path file) throws Exception {
    return 512 * Long.parseLong(Tools.run("stat", "-c", "%b", file.toString()).ok().out().strip());
  }

  @Test
  void qemuDoesNotWriteWhatIsServed() throws Exception {
    Tools.need("qemu-img", "qemu-io", "qemu-nbd");
    try (ServeProcess serve = ServeProcess.ready("-U", socket, disk.toString())) {
      Tools.Result io = Tools.run("qemu-io", "-f", "raw", "-c", "write 0 512", disk.toString());
      assertThat(io.out() + io.err()).contains("Failed to get \"write\" lock");
      Tools.Result copy =
          Tools.run("qemu-img", "convert", "-O", "raw", disk.toString(), directory + "/copy");
      assertThat(copy.status()).isNotZero();
      assertThat(copy.err()).contains("Failed to get shared \"write\" lock");
      Tools.Result nbd = Tools.run("qemu-nbd", "-f", "raw", "-k", socket + "2", disk.toString());
      assertThat(nbd.status()).isNotZero();
      assertThat(nbd.err()).contains("lock");
      Tools.run("qemu-io", "-r", "-U", "-f", "raw", "-c", "read 0 512", disk.toString()).ok();
      serve.stopQuietly();
    }
    Tools.qemuIo(disk.toString(), "write 0 512");
  }

  @Test
  void whatQemuWritesIsNotServedUnlessForced() throws Exception {
    Tools.need("qemu-nbd");
    try (UpstreamProcess _ = UpstreamProcess.qemuNbd(directory, disk.toString())) {
      assertThat(ServeProcess.refusal("-U", socket, disk.toString()))
          .contains("disk.img is in use", "write", "--force-share");
      // A reader is allowed while another writes, as with qemu-nbd.
      try (ServeProcess serve = ServeProcess.ready("-U", socket, "-r", disk.toString())) {
        serve.stopQuietly();
      }
      try (ServeProcess serve =
          ServeProcess.ready("-U", socket, "--force-share", disk.toString())) {
        serve.stopQuietly();
      }
    }
    try (ServeProcess serve = ServeProcess.ready("-U", socket, disk.toString())) {
      serve.stopQuietly();
    }
  }

  @Test
  void aReaderIsToldThatItMayBeWrittenAndKeepsItsSize() throws Exception {
    Tools.need("qemu-io", "qemu-img");
    try (ServeProcess serve = ServeProcess.ready("-U", socket, "-r", disk.toString())) {
      Tools.qemuIo(disk.toString(), "write 0 512");
      Tools.Result resize = Tools.run("qemu-img", "resize", "-f", "raw", disk.toString(), "16M");
      assertThat(resize.status()).isNotZero();
      assertThat(resize.err()).contains("lock");
      serve.stopQuietly();
    }
  }

  @Test
  void twoServersDoNotWriteOneImage() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-U", socket, disk.toString())) {
      assertThat(ServeProcess.refusal("-U", socket + "2", disk.toString()))
          .contains("disk.img is in use");
      serve.stopQuietly();
    }
  }

  /** Makes an image of data, zeroes that are stored, and holes. */
  private Path image() throws IOException {
    Path image = sparse("image", 48 * MIB);
    try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
      for (int i = 0; i < 20; i++) {
        file.seek(2L * i * MIB + 4096L * i);
        file.write(Bytes.random(i, 300_000));
      }
      file.seek(44L * MIB);
      file.write(new byte[MIB]);
    }
    return image;
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void aCopyOfASparseImageIsNoLargerThanQemusOwn(boolean wasFull) throws Exception {
    Tools.need("qemu-img", "nbdcopy");
    Path image = image();
    Path straight = directory.resolve("straight");
    Tools.run(
            "qemu-img", "convert", "-f", "raw", "-O", "raw", image.toString(), straight.toString())
        .ok();
    Path converted = sparse("converted", 48 * MIB);
    Path copied = sparse("copied", 48 * MIB);
    if (wasFull) {
      Files.write(converted, Bytes.random(1, 48 * MIB));
      Files.write(copied, Bytes.random(1, 48 * MIB));
    }
    try (ServeProcess serve = ServeProcess.ready("-U", socket, "dir:" + directory)) {
      String target = serve.uri("converted");
      Tools.run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image.toString(), target)
          .ok();
      Tools.run("nbdcopy", "--flush", image.toString(), serve.uri("copied")).ok();
      serve.stopQuietly();
    }
    assertThat(Files.mismatch(image, converted)).isEqualTo(-1);
    assertThat(Files.mismatch(image, copied)).isEqualTo(-1);
    Tools.run("sync", straight.toString(), converted.toString(), copied.toString()).ok();
    long most = allocated(straight);
    assertThat(allocated(converted)).as("qemu-img convert").isLessThanOrEqualTo(most);
    assertThat(allocated(copied)).as("nbdcopy").isLessThanOrEqualTo(most);
  }

  @Test
  void theLimitOfAFilesSizeIsNoSpaceAndTheRestIsServed() throws Exception {
    Tools.need("prlimit", "nbdsh");
    String script =
        """
        h.pwrite(b"x" * 512, 0)
        for flags in 0, nbd.CMD_FLAG_FUA:
            try:
                h.pwrite(b"x" * 512, 6 << 20, flags)
                print("written")
            except nbd.Error as e:
                print(e.errno)
        h.flush()
        print(h.pread(1, 0))
        """;
    Path file = Files.writeString(directory.resolve("script"), script);
    Tools.Result result =
        Tools.run(
            "prlimit",
            "--fsize=" + 4 * MIB,
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            "-jar",
            System.getProperty("nbd.jar"),
            "serve",
            "--run",
            "nbdsh -u \"$uri\" " + "-c - < '" + file + "'",
            disk.toString());
    assertThat(result.out()).as(result.err()).contains("ENOSPC").doesNotContain("written");
    assertThat(result.out().lines().filter("ENOSPC"::equals)).hasSize(2);
    assertThat(result.out()).contains("b'x'");
    assertThat(result.err()).contains("EFBIG", "disk.img").doesNotContain("\tat ");
  }

  /** Without a further descriptor the whole file is flushed instead. */
  @Test
  void aWriteWithFuaNeedsNoFurtherDescriptor() throws Exception {
    Tools.need("prlimit");
    try (ServeProcess serve = ServeProcess.ready("-U", socket, disk.toString());
        RawClient client = serve.client()) {
      client.flush();
      Tools.run("prlimit", "--pid=" + serve.pid(), "--nofile=1:").ok();
      for (int i = 0; i < 10; i++) {
        client.call(0, RawClient.FUA, RawClient.WRITE, i * 512L, 512, Bytes.random(i, 512));
        client.flush();
      }
      Tools.run("prlimit", "--pid=" + serve.pid(), "--nofile=1024:").ok();
      client.call(0, RawClient.FUA, RawClient.WRITE, 5120, 512, Bytes.random(10, 512));
      client.flush();
      assertThat(client.read(5120, 512)).isEqualTo(Bytes.random(10, 512));
      client.disconnect();
      serve.stopQuietly();
    }
  }

  @Test
  void aDirectoryIsListedAndServedByName() throws Exception {
    Tools.need("nbdinfo", "qemu-io");
    Path images = Files.createDirectory(directory.resolve("images"));
    Files.write(images.resolve("one"), new byte[4096]);
    Files.write(images.resolve("two.img"), new byte[8192]);
    Files.createSymbolicLink(images.resolve("out"), disk);
    try (ServeProcess serve = ServeProcess.ready("-U", socket, "dir:" + images)) {
      String list = Tools.run("nbdinfo", "--list", serve.uri()).ok().out();
      assertThat(list).contains("\"one\"", "\"two.img\"").doesNotContain("\"out\"");
      assertThat(Tools.run("nbdinfo", "--size", serve.uri("two.img")).ok().out())
          .isEqualTo("8192\n");
      Files.write(images.resolve("three"), new byte[1024]);
      assertThat(Tools.run("nbdinfo", "--size", serve.uri("three")).ok().out()).isEqualTo("1024\n");
      Tools.qemuIo(serve.uri("one"), "write -f -P 7 0 4k");
      for (String name : List.of("out", "..", "%2e%2e%2fdisk.img", "")) {
        Tools.Result refused = Tools.run("nbdinfo", "--size", serve.uri(name));
        assertThat(refused.status()).as(name).isEqualTo(1);
      }
      serve.stop();
      assertThat(serve.err()).doesNotContain("\tat ");
    }
    assertThat(Files.readAllBytes(images.resolve("one"))).containsOnly(7);
  }

  /** Each name in a directory is an export of its own, which its flush covers. */
  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void aFlushOfOneFileLeavesAnothersToItsOwn(boolean byExportName) throws Exception {
    Path images = Files.createDirectory(directory.resolve("images"));
    Files.write(images.resolve("one"), new byte[4096]);
    Files.write(images.resolve("two"), new byte[4096]);
    Path stats = directory.resolve("stats");
    try (ServeProcess serve =
            ServeProcess.ready(
                "-U",
                socket,
                "--stats",
                stats.toString(),
                "--multi-conn-exportname=" + byExportName,
                "dir:" + images);
        RawClient one = RawClient.connect(serve.address());
        RawClient two = serve.client("two")) {
      assertThat(one.enter("one").has(8)).as("CAN_MULTI_CONN").isTrue();
      one.write(0, (byte) 1);
      two.write(0, (byte) 2);
      one.flush();
      two.flush();
      one.disconnect();
      two.disconnect();
      serve.stopQuietly();
    }
    assertThat(Files.readString(stats, UTF_8)).contains("\"flush\":2,\"fua\":0");
  }

  @Test
  void afterACopyThatWasToldToTheFileIsNotInThePageCache() throws Exception {
    Tools.need("nbdcopy", "fincore");
    Path image = Files.write(directory.resolve("full"), Bytes.random(3, 32 * MIB));
    Path copy = sparse("copy", 32 * MIB);
    for (String advice : List.of("none", "normal")) {
      try (ServeProcess serve =
          ServeProcess.ready("-U", socket, "--cache-advice=" + advice, copy.toString())) {
        Tools.run("nbdcopy", "--flush", image.toString(), serve.uri()).ok();
        Tools.run("nbdcopy", serve.uri(), "null:").ok();
        long cached =
            Long.parseLong(
                Tools.run("fincore", "-n", "-b", "-o", "RES", copy.toString()).ok().out().strip());
        if (advice.equals("none")) {
          assertThat(cached).isLessThan(4 * MIB);
        } else {
          assertThat(cached).isGreaterThan(24 * MIB);
        }
        serve.stopQuietly();
      }
    }
    assertThat(Files.mismatch(image, copy)).isEqualTo(-1);
  }

  @ParameterizedTest
  @ValueSource(strings = {"normal", "random", "sequential"})
  void theAdviceChangesNothingThatIsRead(String pattern) throws Exception {
    Tools.need("nbdcopy");
    Path image = Files.write(directory.resolve("full"), Bytes.random(4, 4 * MIB));
    Path copy = directory.resolve("copy");
    try (ServeProcess serve =
        ServeProcess.ready("-U", socket, "--fadvise=" + pattern, image.toString())) {
      Tools.run("nbdcopy", serve.uri(), copy.toString()).ok();
      serve.stopQuietly();
    }
    assertThat(Files.mismatch(image, copy)).isEqualTo(-1);
  }
}
