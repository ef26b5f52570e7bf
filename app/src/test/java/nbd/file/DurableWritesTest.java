package nbd.file;

import static nbd.file.Disks.FUA;
import static nbd.file.Disks.direct;
import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executor;
import java.util.stream.Stream;
import nbd.posix.PosixFile;
import nbd.storage.Handle;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.Running;
import nbd.testing.SlowFiles;
import nbd.threads.BlockingCalls;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The openings of a file by which single ranges are written through to the disk. */
@Timeout(300)
final class DurableWritesTest {
  @TempDir private Path directory;

  @BeforeEach
  void needLinux() {
    assumeTrue(PosixFile.isAvailable(), "needs Linux");
  }

  /** Counts the descriptors that this process has of a file. */
  private static long descriptors(Path file) {
    try (Stream<Path> all = Files.list(Path.of("/proc/self/fd"))) {
      return all.filter(each -> leadsTo(each, file)).count();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  private static boolean leadsTo(Path descriptor, Path file) {
    try {
      return Files.readSymbolicLink(descriptor).equals(file);
    } catch (IOException closedMeanwhile) {
      return false;
    }
  }

  @Test
  void aBurstOfWritesHasFewDescriptorsAndLaterNone() throws Exception {
    Path mount = Files.createDirectory(directory.resolve("mount"));
    try (SlowFiles slow = SlowFiles.mount(mount, "direct-slow:1048576")) {
      Path file = slow.file("direct-slow").toRealPath();
      try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT);
          Handle handle = backend.open("", false)) {
        long before = descriptors(file);
        slow.hold("write");
        List<Running> writes = new ArrayList<>();
        for (int i = 0; i < 300; i++) {
          long offset = i * 512L;
          writes.add(
              Running.start(() -> handle.write(ByteBuffer.allocateDirect(512), offset, FUA)));
        }
        slow.awaitHeld(DurableWrites.MOST);
        assertThat(descriptors(file) - before).isEqualTo(DurableWrites.MOST);
        slow.release();
        for (Running write : writes) {
          write.join();
        }
        Eventually.isTrue("they are closed", () -> descriptors(file) == before);
        handle.write(ByteBuffer.allocateDirect(512), 0, FUA);
        handle.flush();
      }
      Eventually.isTrue("nothing is left open", () -> descriptors(file) == 0);
    }
  }

  /** A write that is refused has not been begun, so nothing can be lost. */
  @Test
  void whatCannotBeOpenedOnceMoreHasNotBeenWritten() throws Exception {
    try (BlockingCalls calls = BlockingCalls.ofFile("test");
        DurableWrites writes = new DurableWrites(directory.resolve("gone"), "gone", calls)) {
      ByteBuffer data = ByteBuffer.allocateDirect(512);
      for (int i = 0; i < 2 * DurableWrites.MOST; i++) {
        assertThat(writes.write(data, 0)).isFalse();
      }
      assertThat(data.remaining()).isEqualTo(512);
    }
  }

  @Test
  void aLookThatFoundNoThreadIsMadeUpForByTheNextWrite() throws Exception {
    Path file = Files.write(directory.resolve("disk"), new byte[512]);
    List<Runnable> looks = new ArrayList<>();
    Executor later =
        look -> {
          looks.add(look);
          if (looks.size() == 1) {
            throw new OutOfMemoryError("of the test");
          }
        };
    try (BlockingCalls calls = BlockingCalls.ofFile("test");
        DurableWrites writes = new DurableWrites(file, "disk", calls, later)) {
      for (int i = 0; i < 3; i++) {
        assertThat(writes.write(ByteBuffer.allocateDirect(512), 0)).isTrue();
      }
      assertThat(looks).as("one failed, one is due").hasSize(2);
    }
  }

  @Test
  void whatIsWrittenIsThere() throws Exception {
    Path file = Files.write(directory.resolve("disk"), new byte[8192]);
    try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT);
        Handle handle = backend.open("", false)) {
      byte[] data = Bytes.random(1, 4096);
      handle.write(direct(data), 100, FUA);
      assertThat(Files.readAllBytes(file)).contains(data);
    }
  }
}
