package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import nbd.testing.Bytes;
import nbd.testing.CountingRelay;
import nbd.testing.Eventually;
import nbd.testing.RawClient;
import nbd.testing.Running;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Images that common programs copy to and from the server. */
@Timeout(300)
final class CopyIT {
  private static final int SIZE = 48 << 20;

  @TempDir private Path directory;
  private Path image;
  private Path disk;
  private Path copy;

  /** Makes an image with data, zeroes in between, and an end that is not on a page. */
  @BeforeEach
  void create() throws IOException {
    byte[] content = Bytes.random(21, SIZE + 512);
    Arrays.fill(content, 5 << 20, 9 << 20, (byte) 0);
    Arrays.fill(content, 40 << 20, 41 << 20, (byte) 0);
    image = Files.write(directory.resolve("image"), content);
    disk = Files.write(directory.resolve("disk.img"), new byte[SIZE + 512]);
    copy = directory.resolve("copy");
  }

  private ServeProcess serve(boolean tcp) throws Exception {
    return tcp
        ? ServeProcess.ready("-p", "0", disk.toString())
        : ServeProcess.on(directory, disk.toString());
  }

  private static void assertSame(Path one, Path other) throws IOException {
    assertThat(Files.mismatch(one, other)).as("the first byte that differs").isEqualTo(-1);
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void nbdcopyWithFourConnectionsBothWays(boolean tcp) throws Exception {
    Tools.need("nbdcopy");
    try (ServeProcess serve = serve(tcp)) {
      String uri = serve.uri();
      Tools.run("nbdcopy", "--flush", "--connections=4", image.toString(), uri).ok();
      Tools.run("nbdcopy", "--connections=4", "--request-size=65536", uri, copy.toString()).ok();
      assertSame(image, copy);
      serve.stopQuietly();
    }
    assertSame(image, disk);
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void qemuImgConvertsAndCompares(boolean tcp) throws Exception {
    Tools.need("qemu-img");
    try (ServeProcess serve = serve(tcp)) {
      String uri = serve.uri();
      Tools.run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image.toString(), uri).ok();
      assertThat(
              Tools.run("qemu-img", "compare", "-f", "raw", "-F", "raw", image.toString(), uri)
                  .ok()
                  .out())
          .contains("identical");
      assertThat(Tools.run("qemu-img", "info", uri).ok().out()).contains("" + (SIZE + 512));
      Tools.run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, copy.toString()).ok();
      assertSame(image, copy);
      serve.stopQuietly();
    }
    assertSame(image, disk);
  }

  /** 10 GiB, of which 1 % is data: holes are never sent, whether a client asks for them or not. */
  @Test
  void aSparseImageIsCopiedByItsDataOnly() throws Exception {
    Tools.need("nbdcopy");
    long size = 10L << 30;
    try (ServeProcess serve = ServeProcess.ready("-p", "0", "memory:10G");
        RawClient writer = serve.client();
        CountingRelay relay = new CountingRelay(serve.address())) {
      for (int i = 0; i < 100; i++) {
        writer.write((i * (size / 100)) & -65_536L, Bytes.random(i, 1 << 20));
      }
      String uri = "nbd://127.0.0.1:" + relay.port() + "/";
      Tools.run("nbdcopy", "--connections=4", uri, "null:").ok();
      long asked = relay.bytesToClients();
      assertThat(asked).isBetween(100L << 20, size / 50);
      // The client asks for no extents: its long reads alone leave the holes out.
      Tools.run("nbdcopy", "--no-extents", "--request-size=33554432", uri, "null:").ok();
      assertThat(relay.bytesToClients() - asked).isBetween(100L << 20, size / 50);
      writer.disconnect();
      serve.stopQuietly();
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void sparseImagesStaySparseBothWays(boolean allocated) throws Exception {
    Tools.need("nbdcopy", "qemu-img");
    try (ServeProcess serve = ServeProcess.ready("-p", "0", "memory:" + (SIZE + 512))) {
      String uri = serve.uri();
      List<String> nbdcopy = new ArrayList<>(List.of("nbdcopy", "--flush", image.toString(), uri));
      if (allocated) {
        nbdcopy.add(1, "--allocated");
      }
      Tools.run(nbdcopy.toArray(String[]::new)).ok();
      assertThat(Tools.run("nbdinfo", "--map", uri).ok().out().contains("hole"))
          .isEqualTo(!allocated);
      Tools.run("qemu-img", "convert", "-S", "64k", "-f", "raw", "-O", "raw", uri, copy.toString())
          .ok();
      assertSame(image, copy);
      Tools.run("nbdcopy", uri, copy.toString()).ok();
      assertSame(image, copy);
      serve.stopQuietly();
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void qemuIoSeesWhatItWroteZeroedAndDiscarded(boolean tcp) throws Exception {
    Tools.need("qemu-io");
    try (ServeProcess serve = serve(tcp)) {
      Tools.qemuIo(
          serve.uri(),
          "write -P 0xaa 0 8M",
          "read -P 0xaa 0 8M",
          "write -z 1M 1M",
          "read -P 0 1M 1M",
          "write -z -u 3M 64k",
          "read -P 0 3M 64k",
          "write -f -P 0x55 5M 123k",
          "discard 6M 1M",
          "flush",
          "aio_write -P 0x11 7M 32k",
          "aio_flush",
          "read -P 0xaa 0 1M",
          "read -P 0xaa 2M 1M",
          "read -P 0xaa 3136k 64k",
          "read -P 0x55 5M 123k",
          "read -P 0x11 7M 32k",
          "write -P 0x77 16M 32M",
          "read -P 0x77 16M 32M");
      serve.stopQuietly();
    }
    byte[] content = Files.readAllBytes(disk);
    assertThat(content[(1 << 20) + 5]).isZero();
    assertThat(content[(5 << 20) + 5]).isEqualTo((byte) 0x55);
    assertThat(content[16 << 20]).isEqualTo((byte) 0x77);
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void fioVerifiesWhatItWrote(boolean tcp) throws Exception {
    Tools.need("fio");
    try (ServeProcess serve = serve(tcp)) {
      String[] fio =
          Tools.fio(
              serve.uri(),
              "--rw=randwrite",
              "--bsrange=512-64k",
              "--blockalign=512",
              "--size=16M",
              "--iodepth=32",
              "--fsync=100");
      assertThat(Tools.run(fio).ok().out()).contains("err= 0");
      serve.stopQuietly();
    }
  }

  @Test
  void aThousandHandshakesLeftHangingDoNotDisturbACopy() throws Exception {
    Tools.need("nbdcopy");
    List<RawClient> hanging = new ArrayList<>();
    try (ServeProcess serve =
        ServeProcess.ready("--handshake-timeout=10m", "-p", "0", disk.toString())) {
      for (int i = 0; i < 1000; i++) {
        RawClient client = RawClient.connect(serve.address());
        hanging.add(client);
        if (i % 2 == 0) {
          client.hello(3);
        }
      }
      Tools.run("nbdcopy", "--connections=4", image.toString(), serve.uri()).ok();
      Tools.run("nbdcopy", "--connections=4", serve.uri(), copy.toString()).ok();
      assertSame(image, copy);
      serve.stopQuietly();
    } finally {
      for (RawClient client : hanging) {
        client.close();
      }
    }
  }

  /** Every write that was answered before the end is in the file. */
  @ParameterizedTest
  @ValueSource(strings = {"TERM", "INT"})
  void aSignalDuringACopyLosesNothingThatWasAnswered(String signal) throws Exception {
    try (ServeProcess serve = serve(false);
        RawClient writer = serve.client();
        RawClient _ = serve.client()) {
      int piece = 4096;
      byte[] content = Files.readAllBytes(image);
      int pieces = SIZE / piece;
      Running sending =
          Running.start(
              () -> {
                for (int i = 0; i < pieces; i++) {
                  byte[] data = Arrays.copyOfRange(content, i * piece, (i + 1) * piece);
                  writer.request(0, RawClient.WRITE, i, (long) i * piece, piece, data);
                }
              });
      List<Integer> answered = new ArrayList<>();
      boolean signalled = false;
      try {
        while (answered.size() < pieces) {
          answered.add((int) writer.expectReply(0));
          if (answered.size() == 500) {
            serve.signal(signal);
            signalled = true;
          }
        }
      } catch (IOException | AssertionError theServerEnded) {
        assertThat(signalled).as("it ended by the signal").isTrue();
      }
      Eventually.isTrue("the server's end stops the sender", sending::isDone);
      assertThat(serve.awaitEnd()).as(serve.err()).isZero();
      assertThat(answered).hasSizeGreaterThanOrEqualTo(500);
      byte[] written = Files.readAllBytes(disk);
      for (int i : answered) {
        assertThat(
                Arrays.mismatch(
                    content, i * piece, (i + 1) * piece, written, i * piece, (i + 1) * piece))
            .as("write %d", i)
            .isEqualTo(-1);
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"TERM", "INT"})
  void aSignalDuringFioEndsTheServerInOrder(String signal) throws Exception {
    Tools.need("fio");
    try (ServeProcess serve = serve(false)) {
      String[] writing =
          Tools.fio(
              serve.uri(),
              "--rw=randwrite",
              "--bs=4k",
              "--size=16M",
              "--iodepth=16",
              "--time_based",
              "--runtime=60");
      Process fio = Tools.start(directory.resolve("fio"), writing);
      Eventually.isTrue("fio writes", () -> hasData(disk));
      serve.signal(signal);
      assertThat(serve.awaitEnd()).as(serve.err()).isZero();
      fio.destroy();
      fio.waitFor();
    }
  }

  private static boolean hasData(Path file) {
    try {
      return !Arrays.equals(Files.readAllBytes(file), new byte[SIZE + 512]);
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }
}
