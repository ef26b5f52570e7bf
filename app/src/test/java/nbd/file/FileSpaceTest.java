package nbd.file;

import static nbd.file.Disks.FAST_ZERO;
import static nbd.file.Disks.NO_HOLE;
import static nbd.file.Disks.allocated;
import static nbd.file.Disks.read;
import static nbd.file.Disks.sparse;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import nbd.posix.PosixFile;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capability;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.testing.Model;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The blocks of a real file, on the file system of the temporary directory and on a tmpfs. */
@Timeout(300)
final class FileSpaceTest {
  private static final int BLOCK = 4096;

  @TempDir private Path directory;
  private Path file;

  @BeforeEach
  void isLinux() {
    assumeTrue(PosixFile.isAvailable(), "needs Linux");
    file = directory.resolve("disk.img");
  }

  private static ByteBuffer ones(int length) {
    ByteBuffer data = ByteBuffer.allocateDirect(length);
    while (data.hasRemaining()) {
      data.put((byte) 1);
    }
    return data.flip();
  }

  @Test
  void trimAndZeroGiveSpaceBackAndNoHoleTakesIt() throws IOException {
    int size = 64 * BLOCK;
    sparse(file, size);
    try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT);
        Handle handle = backend.open("", false)) {
      assertThat(allocated(file)).isZero();
      handle.write(ones(size), 0, CommandFlags.NONE);
      handle.flush();
      assertThat(allocated(file)).isEqualTo(size);
      handle.trim(0, 16 * BLOCK, CommandFlags.NONE);
      assertThat(allocated(file)).isEqualTo(48 * BLOCK);
      handle.zero(16 * BLOCK, 16 * BLOCK, CommandFlags.NONE);
      assertThat(allocated(file)).isEqualTo(32 * BLOCK);
      handle.zero(0, 16 * BLOCK, NO_HOLE);
      handle.flush();
      assertThat(allocated(file)).isEqualTo(48 * BLOCK);
      // Not aligned to blocks: the bytes beside the range stay.
      handle.zero(40 * BLOCK + 5, 3 * BLOCK, CommandFlags.NONE);
      byte[] read = read(handle, 40 * BLOCK, 3 * BLOCK + 10);
      for (int at = 0; at < read.length; at++) {
        assertThat(read[at]).isEqualTo((byte) (at < 5 || at >= 3 * BLOCK + 5 ? 1 : 0));
      }
    }
    assertThat(Files.size(file)).isEqualTo(size);
  }

  @Test
  void fastZeroIsFastOrRefusedWithNothingChanged() throws IOException {
    Path shm = Path.of("/dev/shm");
    List<Path> places = new ArrayList<>(List.of(directory));
    if (Files.isWritable(shm)) {
      places.add(shm);
    }
    for (Path place : places) {
      Path disk = Files.createTempFile(place, "nbd-", ".img");
      try {
        sparse(disk, 16 * BLOCK);
        try (FileBackend backend = FileBackend.open(disk, FileSettings.DEFAULT);
            Handle handle = backend.open("", false)) {
          assertThat(handle.capabilities().has(Capability.FAST_ZERO)).as("%s", place).isTrue();
          assertThat(allocated(disk)).as("asking takes no space").isZero();
          handle.write(ones(16 * BLOCK), 0, CommandFlags.NONE);
          handle.zero(BLOCK, BLOCK, FAST_ZERO);
          int refused = 0;
          try {
            handle.zero(2 * BLOCK, BLOCK, FAST_ZERO.with(CommandFlag.NO_HOLE));
          } catch (NbdException slow) {
            assertThat(slow.error()).isEqualTo(NbdError.ENOTSUP);
            refused = 1;
          }
          assertThat(read(handle, BLOCK, 1)).containsExactly(0);
          assertThat(read(handle, 2 * BLOCK, 1)).containsExactly(refused);
          handle.zero(2 * BLOCK, BLOCK, NO_HOLE);
          assertThat(read(handle, 2 * BLOCK, 1)).containsExactly(0);
          assertThat(read(handle, 3 * BLOCK, 1)).containsExactly(1);
        }
      } finally {
        Files.delete(disk);
      }
    }
  }

  @Test
  void withoutTheSystemsCallsFastZeroIsRefused() throws IOException {
    Handle handle = new FakeDisk(BLOCK, number -> {}).served("disk.img").open("", false);
    handle.write(ones(BLOCK), 0, CommandFlags.NONE);
    assertThatThrownBy(() -> handle.zero(0, 10, FAST_ZERO.with(CommandFlag.NO_HOLE)))
        .isInstanceOfSatisfying(
            NbdException.class, e -> assertThat(e.error()).isEqualTo(NbdError.ENOTSUP));
    assertThat(read(handle, 0, 1)).containsExactly(1);
  }

  private static List<Extent> all(Handle handle, int most) throws IOException {
    List<Extent> found = new ArrayList<>();
    long at = 0;
    while (at < handle.size()) {
      List<Extent> some = handle.extents(at, handle.size() - at, most);
      assertThat(some).isNotEmpty().hasSizeLessThanOrEqualTo(most);
      for (Extent extent : some) {
        at += extent.length();
      }
      found.addAll(some);
    }
    assertThat(at).isEqualTo(handle.size());
    return found;
  }

  @Test
  void extentsOfAFragmentedFileAreExact() throws IOException {
    int blocks = 500;
    int size = blocks * BLOCK + 700;
    sparse(file, size);
    Random random = new Random(Model.seed());
    boolean[] data = new boolean[blocks + 1];
    try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT);
        Handle handle = backend.open("", false)) {
      for (int block = 0; block < blocks; block++) {
        data[block] = random.nextBoolean();
        if (data[block]) {
          handle.write(ones(1), (long) block * BLOCK + random.nextInt(BLOCK), CommandFlags.NONE);
        }
      }
      List<Extent> expected = new ArrayList<>();
      int from = 0;
      for (int block = 1; block <= blocks + 1; block++) {
        if (block > blocks || data[block] != data[from]) {
          long length = Math.min((long) block * BLOCK, size) - (long) from * BLOCK;
          expected.add(data[from] ? Extent.data(length) : Extent.hole(length));
          from = block;
        }
      }
      assertThat(handle.capabilities().has(Capability.EXTENTS)).isTrue();
      assertThat(handle.extents(0, size, Integer.MAX_VALUE)).isEqualTo(expected);
      assertThat(all(handle, 1)).isEqualTo(expected);
      assertThat(all(handle, 7)).isEqualTo(expected);
      // From the middle of an extent: the rest of it.
      Extent first = expected.getFirst();
      assertThat(handle.extents(100, size - 100, 1))
          .containsExactly(new Extent(first.length() - 100, first.hole(), first.zero()));
      // A short range: no walk through the rest of the file.
      assertThat(handle.extents(0, 1, 1000)).hasSize(1);
    }
  }

  @Test
  void emptyFullAndTruncatedFilesHaveExtentsToo() throws IOException {
    sparse(file, 10 * BLOCK + 1);
    try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT);
        Handle handle = backend.open("", false)) {
      assertThat(all(handle, 10)).containsExactly(Extent.hole(10 * BLOCK + 1));
      handle.write(ones(10 * BLOCK + 1), 0, CommandFlags.NONE);
      assertThat(all(handle, 10)).containsExactly(Extent.data(10 * BLOCK + 1));
      handle.zero(5 * BLOCK, 5 * BLOCK + 1, CommandFlags.NONE);
      sparse(file, 7 * BLOCK);
      // Past the new end there are no zeroes: reads fail there.
      assertThat(all(handle, 10))
          .containsExactly(
              Extent.data(5 * BLOCK), Extent.hole(2 * BLOCK), Extent.data(3 * BLOCK + 1));
      assertThat(handle.extents(8 * BLOCK, 10, 1)).containsExactly(Extent.data(2 * BLOCK + 1));
    }
  }

  /** A walk from the begin of the file would take 200,000 system calls. */
  @Test
  void aFewExtentsOfManyTakeAFewCalls() throws IOException {
    int[] calls = new int[1];
    FakeDisk disk =
        new FakeDisk(1 << 20, number -> {}) {
          @Override
          public java.util.OptionalLong nextData(long offset) {
            calls[0]++;
            return java.util.OptionalLong.of(offset % 2 == 0 ? offset : offset + 1);
          }

          @Override
          public java.util.OptionalLong nextHole(long offset) {
            calls[0]++;
            return java.util.OptionalLong.of(offset % 2 == 0 ? offset + 1 : offset);
          }
        };
    List<Extent> found = new FileExtents(disk, 1 << 20).of(500_000, 100_000, 8);
    assertThat(found).hasSize(8);
    assertThat(calls[0]).isLessThanOrEqualTo(16);
    assertThat(IntStream.range(0, 8).mapToObj(i -> found.get(i).hole()).collect(Collectors.toSet()))
        .containsExactlyInAnyOrder(true, false);
  }

  @Test
  void theFileThatGrewIsAsLargeForLaterConnections() throws IOException {
    sparse(file, BLOCK);
    try (FileBackend backend = FileBackend.open(file, FileSettings.DEFAULT);
        Handle before = backend.open("", false)) {
      sparse(file, 3 * BLOCK);
      try (Handle after = backend.open("", false)) {
        assertThat(before.size()).isEqualTo(BLOCK);
        assertThat(after.size()).isEqualTo(3 * BLOCK);
        after.write(ones(1), 3 * BLOCK - 1, CommandFlags.NONE);
        assertThat(all(before, 5)).containsExactly(Extent.hole(BLOCK));
      }
    }
  }
}
