package nbd.file;

import static nbd.file.Disks.direct;
import static nbd.file.Disks.read;
import static nbd.file.Disks.sparse;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.FileChannel;
import java.nio.channels.WritableByteChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdException;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.ReadTarget;
import nbd.testing.Bytes;
import nbd.testing.Model;
import nbd.testing.Running;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A real file, served. */
@Timeout(300)
final class FileBackendTest {
  private static final int SIZE = 1 << 20;

  @TempDir private Path directory;
  private Path file;

  @BeforeEach
  void create() throws IOException {
    file = directory.resolve("disk.img");
    Files.write(file, new byte[SIZE]);
  }

  @Test
  void itBehavesAsAnArray() throws IOException {
    try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT);
        Handle handle = backend.open("", false)) {
      new Model(Model.seed(), handle, 4096, 65_536).run(300);
    }
  }

  @Test
  void itBehavesAsAnArrayWithoutTheSystemsOwnCalls() throws IOException {
    FileChannel channel = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE);
    try (FileBackend backend =
            new FileBackend("disk.img", new ChannelFile(channel), FileSettings.DEFAULT);
        Handle handle = backend.open("", false)) {
      new Model(Model.seed(), handle, 4096, 65_536).run(300);
    }
  }

  @Test
  void itBehavesAsAnArrayOnVirtualThreads() throws IOException {
    Running.start(this::itBehavesAsAnArray).join();
  }

  @Test
  void whatIsWrittenIsInTheFile() throws IOException {
    byte[] data = Bytes.random(1, 10_000);
    try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT);
        Handle handle = backend.open("", false)) {
      handle.write(direct(data), 77, CommandFlags.NONE);
      handle.flush();
      byte[] whole = Files.readAllBytes(file);
      assertThat(java.util.Arrays.copyOfRange(whole, 77, 10_077)).isEqualTo(data);
    }
    assertThat(Files.size(file)).isEqualTo(SIZE);
  }

  @Test
  void allConnectionsSeeTheSameAndMultiConnIsPromised() throws IOException {
    try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT);
        Handle one = backend.open("a", false);
        Handle other = backend.open("b", true)) {
      one.write(direct(Bytes.random(2, 100)), 5, CommandFlags.NONE);
      assertThat(read(other, 5, 100)).isEqualTo(Bytes.random(2, 100));
      assertThat(one.capabilities().has(Capability.MULTI_CONN)).isTrue();
      assertThat(other.capabilities().has(Capability.WRITE)).isFalse();
    }
  }

  @Test
  void dataSentStraightFromTheFileIsTheFilesData() throws IOException {
    byte[] data = Bytes.random(3, SIZE);
    Files.write(file, data);
    try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT);
        Handle handle = backend.open("", false)) {
      read(handle, 0, SIZE);
      java.io.ByteArrayOutputStream sent = new java.io.ByteArrayOutputStream();
      long[] counted = {0};
      ReadTarget target =
          new ReadTarget() {
            @Override
            public WritableByteChannel begin() {
              return Channels.newChannel(sent);
            }

            @Override
            public void sent(long bytes) {
              counted[0] += bytes;
            }

            @Override
            public ByteBuffer piece() {
              return ByteBuffer.allocateDirect(1000);
            }

            @Override
            public void write(ByteBuffer piece) throws IOException {
              sent(Channels.newChannel(sent).write(piece));
            }
          };
      if (handle.tryNow(new Operation().transferring(123, 200_000, target))) {
        assertThat(sent.toByteArray()).isEqualTo(java.util.Arrays.copyOfRange(data, 123, 200_123));
        assertThat(counted[0]).isEqualTo(200_000);
      } else {
        assertThat(sent.size()).isZero();
      }
    }
  }

  @Test
  void aFileTruncatedWhileServedIsAClearError() throws IOException {
    try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT);
        Handle handle = backend.open("", false)) {
      handle.write(direct((byte) 1), 10, CommandFlags.NONE);
      sparse(file, 1000);
      assertThatThrownBy(() -> read(handle, 500, 1000))
          .isInstanceOf(NbdException.class)
          .hasMessageContainingAll("disk.img", "truncated to 1000 bytes", "" + SIZE);
      assertThat(handle.tryNow(Operation.read(ByteBuffer.allocateDirect(1000), 500))).isFalse();
      assertThat(read(handle, 10, 1)).as("the rest is there").containsExactly(1);
      handle.write(direct((byte) 2), SIZE - 1, CommandFlags.NONE);
      assertThat(read(handle, SIZE - 1, 1)).containsExactly(2);
    }
  }

  @Test
  void theFileThatWasOpenedIsServedWhateverBecomesOfItsName() throws IOException {
    try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT);
        Handle before = backend.open("", false)) {
      Files.move(file, directory.resolve("moved"));
      Files.write(file, Bytes.random(4, 100));
      try (Handle after = backend.open("", false)) {
        assertThat(after.size()).isEqualTo(SIZE);
        after.write(direct((byte) 9), 0, CommandFlags.NONE);
        assertThat(read(before, 0, 1)).containsExactly(9);
      }
    }
    assertThat(Files.readAllBytes(file)).isEqualTo(Bytes.random(4, 100));
  }

  @Test
  void whatCannotBeOpenedIsSaidInASentence() throws IOException {
    assertThatThrownBy(() -> FileBackend.open(directory.resolve("none"), FileSettings.DEFAULT))
        .isInstanceOf(IOException.class)
        .hasMessageContainingAll("none", "does not exist");
    assertThatThrownBy(() -> FileBackend.open(directory, FileSettings.DEFAULT.readOnly(true)))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("is a directory");
  }

  @Test
  void aFileThatMayNotBeReadIsSaidSo() throws IOException {
    assumeTrue(!System.getProperty("user.name").equals("root"), "root may read everything");
    assertThat(file.toFile().setReadable(false)).isTrue();
    assertThatThrownBy(() -> FileBackend.open(file, FileSettings.DEFAULT.readOnly(true)))
        .hasMessageContaining("permission denied");
  }

  @Test
  void readOnlyNeverWritesTheFile() throws IOException {
    try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT.readOnly(true));
        Handle handle = backend.open("", false)) {
      assertThat(handle.capabilities().has(Capability.WRITE)).isFalse();
      assertThat(handle.capabilities().has(Capability.TRIM)).isFalse();
      assertThat(read(handle, 0, 10)).containsOnly(0);
    }
  }

  @Test
  void aFullDeviceIsAnErrorAndNotSilence() throws IOException {
    Path full = Path.of("/dev/full");
    assumeTrue(Files.exists(full), "there is no /dev/full");
    try (FileBackend backend = FileBackend.open(full, FileSettings.DEFAULT);
        Handle handle = backend.open("", false)) {
      assertThatThrownBy(() -> handle.write(direct((byte) 1), 0, CommandFlags.NONE))
          .isInstanceOf(nbd.protocol.NbdException.class)
          .hasMessageContaining("ENOSPC");
      assertThatThrownBy(
              () -> handle.tryNow(Operation.write(direct((byte) 1), 0, CommandFlags.NONE)))
          .isInstanceOf(nbd.protocol.NbdException.class);
    } catch (IOException flushOfADevice) {
      // A device without storage cannot be flushed at the end, which is not tested here.
      assertThat(flushOfADevice).hasMessageContaining("flush");
    }
  }

  @Test
  void aFailedFlushIsNeverForgotten() throws IOException {
    // /dev/full refuses fdatasync with EINVAL.
    Path full = Path.of("/dev/full");
    assumeTrue(Files.exists(full), "there is no /dev/full");
    FileBackend backend = FileBackend.open(full, FileSettings.DEFAULT);
    Handle one = backend.open("", false);
    Handle other = backend.open("", false);
    assertThatThrownBy(one::flush).hasMessageContainingAll("/dev/full", "flush failed");
    assertThatThrownBy(one::flush).hasMessageContaining("flush failed");
    assertThatThrownBy(other::flush).hasMessageContaining("flush failed");
    assertThatThrownBy(backend::close).hasMessageContaining("flush failed");
  }
}
