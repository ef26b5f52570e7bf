package nbd.file;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Handle;

/** Helpers of the tests here for image files and their data. */
final class Disks {
  static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);
  static final CommandFlags NO_HOLE = CommandFlags.of(CommandFlag.NO_HOLE);
  static final CommandFlags FAST_ZERO = CommandFlags.of(CommandFlag.FAST_ZERO);

  private Disks() {}

  /** Makes a file of a hole, or gives it another size. */
  static Path sparse(Path file, long size) throws IOException {
    try (RandomAccessFile made = new RandomAccessFile(file.toFile(), "rw")) {
      made.setLength(size);
    }
    return file;
  }

  /** Returns the bytes that a file takes on the disk. */
  static long allocated(Path file) throws IOException {
    Process stat = new ProcessBuilder("stat", "-c", "%b %B", file.toString()).start();
    String[] said = new String(stat.getInputStream().readAllBytes(), UTF_8).strip().split(" ");
    return Long.parseLong(said[0]) * Long.parseLong(said[1]);
  }

  static ByteBuffer direct(byte... bytes) {
    return ByteBuffer.allocateDirect(bytes.length).put(bytes).flip();
  }

  static byte[] read(Handle handle, long offset, int length) throws IOException {
    ByteBuffer into = ByteBuffer.allocateDirect(length);
    handle.read(into, offset);
    byte[] bytes = new byte[length];
    into.flip().get(bytes);
    return bytes;
  }
}
