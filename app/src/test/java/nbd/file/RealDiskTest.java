package nbd.file;

import static nbd.file.Disks.FUA;
import static nbd.file.Disks.NO_HOLE;
import static nbd.file.Disks.allocated;
import static nbd.file.Disks.direct;
import static nbd.file.Disks.read;
import static nbd.file.Disks.sparse;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import nbd.file.FileSettings.AccessPattern;
import nbd.file.FileSettings.CacheAdvice;
import nbd.posix.PosixFile;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.testing.Bytes;
import nbd.testing.Log;
import nbd.testing.Model;
import nbd.testing.Mounted;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.tinylog.Level;

/** Real file systems that are full or read-only, block devices, and a real page cache. */
@Timeout(300)
final class RealDiskTest {
  private static final int MIB = 1 << 20;

  @TempDir private Path directory;

  private static ByteBuffer data(int length) {
    return direct(Bytes.random(5, length));
  }

  private static void fill(Handle handle, CommandFlags flags) throws IOException {
    for (long at = 0; at < handle.size(); at += MIB / 4) {
      handle.write(data(MIB / 4), at, flags);
    }
  }

  private static void assertFull(Path place) throws IOException {
    Path disk = sparse(place.resolve("disk.img"), 64L * MIB);
    try (FileBackend backend = FileBackend.open(disk, FileSettings.DEFAULT);
        Handle handle = backend.open("", false)) {
      for (CommandFlags flags : new CommandFlags[] {CommandFlags.NONE, FUA}) {
        assertThatThrownBy(() -> fill(handle, flags))
            .isInstanceOfSatisfying(
                NbdException.class, e -> assertThat(e.error()).isEqualTo(NbdError.ENOSPC))
            .hasMessageContainingAll("disk.img", "ENOSPC");
      }
      assertThatThrownBy(() -> handle.zero(0, 64L * MIB, NO_HOLE))
          .isInstanceOfSatisfying(
              NbdException.class, e -> assertThat(e.error()).isEqualTo(NbdError.ENOSPC));
      // Nothing is lost, and writes succeed again when there is room.
      handle.flush();
      handle.trim(0, 64L * MIB, CommandFlags.NONE);
      handle.write(data(100), 0, FUA);
      handle.flush();
    }
  }

  @Test
  void aFullTmpfsIsNoSpace() throws IOException {
    try (Mounted tmpfs = Mounted.tmpfs(Files.createDirectory(directory.resolve("t")), "size=4m")) {
      assertFull(tmpfs.path());
    }
  }

  @Test
  void aFullExt4IsNoSpace() throws IOException {
    Path image = sparse(directory.resolve("ext4"), 16L * MIB);
    try (Mounted ext4 = Mounted.ext4(image, Files.createDirectory(directory.resolve("e")))) {
      assertFull(ext4.path());
    }
  }

  @Test
  void whatCannotBeWrittenIsServedReadOnlyAndThatIsSaid() throws IOException {
    try (Mounted tmpfs = Mounted.tmpfs(Files.createDirectory(directory.resolve("r")), "size=1m")) {
      Path disk = sparse(tmpfs.path().resolve("disk.img"), 4096);
      tmpfs.remount("ro");
      Log.clear();
      try (FileBackend backend = FileBackend.open(disk, FileSettings.DEFAULT);
          Handle handle = backend.open("", false)) {
        assertThat(handle.capabilities().has(Capability.WRITE)).isFalse();
        handle.read(ByteBuffer.allocateDirect(4096), 0);
      }
      assertThat(Log.at(Level.INFO))
          .anyMatch(line -> line.contains("disk.img") && line.contains("read-only"));
    }
  }

  @Test
  void aBlockDeviceIsServed() throws IOException {
    byte[] content = Bytes.random(7, 4 * MIB);
    Path image = Files.write(directory.resolve("image"), content);
    try (Mounted loop = Mounted.loop(image);
        FileBackend backend = FileBackend.open(loop.path(), FileSettings.DEFAULT);
        Handle handle = backend.open("", false)) {
      assertThat(handle.size()).isEqualTo(4 * MIB);
      assertThat(handle.blockSizes().minimum()).isEqualTo(1);
      new Model(Model.seed(), handle, content, 512, 4096, 65_536).run(200);
      handle.write(data(5000), 777, FUA);
      handle.flush();
      fill(handle, CommandFlags.NONE);
      handle.flush();
      long before = allocated(image);
      handle.trim(MIB + 5, MIB, CommandFlags.NONE);
      assertThat(before - allocated(image)).as("given back").isGreaterThan(MIB - 9000);
      handle.zero(0, 4 * MIB - 3, CommandFlags.NONE);
      handle.flush();
      assertThat(read(handle, 0, 4 * MIB - 3)).containsOnly(0);
    }
  }

  @Test
  void aReadOnlyDeviceIsServedReadOnly() throws IOException {
    Path image = sparse(directory.resolve("image"), MIB);
    try (Mounted loop = Mounted.loop(image, "--read-only");
        FileBackend backend = FileBackend.open(loop.path(), FileSettings.DEFAULT);
        Handle handle = backend.open("", false)) {
      assertThat(handle.size()).isEqualTo(MIB);
      assertThat(handle.capabilities().has(Capability.WRITE)).isFalse();
    }
  }

  /** Copies in, and reads back. */
  @Test
  void aCopyLeavesThePageCacheAloneIfItIsToldTo() throws IOException {
    long pages = 32L * MIB / 4096;
    assertThat(cachedAfterACopy(CacheAdvice.NORMAL)).isGreaterThan(pages / 2);
    assertThat(cachedAfterACopy(CacheAdvice.NONE)).isLessThan(pages / 8);
  }

  private long cachedAfterACopy(CacheAdvice advice) throws IOException {
    Path disk = sparse(directory.resolve("copy-" + advice), 32L * MIB);
    FileSettings settings = new FileSettings(false, true, AccessPattern.SEQUENTIAL, advice);
    try (Arena arena = Arena.ofConfined();
        FileBackend backend = FileBackend.open(disk, settings);
        Handle handle = backend.open("", false);
        PosixFile asked = opened(disk)) {
      fill(handle, CommandFlags.NONE);
      handle.flush();
      PosixFile.Query query = new PosixFile.Query(arena);
      long afterWriting = asked.cachedPages(query, 0, 0);
      assumeTrue(afterWriting >= 0, "the kernel does not tell what is cached");
      ByteBuffer read = ByteBuffer.allocateDirect(MIB / 4);
      for (long at = 0; at < handle.size(); at += MIB / 4) {
        if (!handle.tryNow(Operation.read(read.clear(), at))) {
          handle.read(read.clear(), at);
        }
        assertThat(read.get(0)).isEqualTo(Bytes.random(5, 1)[0]);
      }
      return Math.max(afterWriting, asked.cachedPages(query, 0, 0));
    }
  }

  @Test
  void whatIsFetchedBeforeItIsReadIsInThePageCache() throws IOException {
    Path disk = Files.write(directory.resolve("disk.img"), Bytes.random(1, 64 << 10));
    try (Arena arena = Arena.ofConfined();
        FileBackend backend = FileBackend.open(disk, FileSettings.DEFAULT);
        Handle handle = backend.open("", true);
        PosixFile asked = opened(disk)) {
      handle.flush();
      asked.advise(0, 0, PosixFile.Advice.DONTNEED);
      PosixFile.Query query = new PosixFile.Query(arena);
      assumeTrue(asked.cachedPages(query, 0, 0) == 0, "this file stays in the page cache");
      handle.prefetch().orElseThrow().expect(8 << 10, 4 << 10);
      assertThat(asked.cachedPages(query, 8 << 10, 4 << 10)).isEqualTo(1);
    }
  }

  private static PosixFile opened(Path file) throws IOException {
    assumeTrue(PosixFile.isAvailable(), "needs Linux");
    return PosixFile.open(file, false, file.toString()).orElseThrow();
  }
}
