package nbd.file;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.posix.BlockDevice;
import nbd.posix.PosixException;
import nbd.posix.PosixFile;
import org.tinylog.Logger;

/**
 * A block device's space. Only whole sectors can be given back or zeroed by the device: what a
 * range has beside them stays when it is discarded, and is written when it is zeroed.
 */
final class DeviceSpace implements Space {
  private final PosixFile file;
  private final BlockDevice device;
  private final String name;
  private final int sector;
  private volatile boolean cannotDiscard;
  private volatile boolean cannotPunch;

  DeviceSpace(PosixFile file, BlockDevice device, String name) throws IOException {
    this.file = file;
    this.device = device;
    this.name = name;
    this.sector = device.sectorSize();
  }

  private long up(long offset) {
    return -(-offset & -sector);
  }

  private long down(long offset) {
    return offset & -sector;
  }

  @Override
  public void discard(long offset, long length) throws IOException {
    long start = up(offset);
    long end = down(offset + length);
    if (start < end && !cannotDiscard) {
      cannotDiscard = !works(() -> device.discard(start, end - start));
    }
  }

  @Override
  public boolean zero(long offset, long length, boolean mayPunch, boolean mustBeFast)
      throws IOException {
    long start = up(offset);
    long end = down(offset + length);
    if (start >= end) {
      // Less than a sector: nothing is faster than to write it.
      write(offset, length);
      return true;
    }
    if (!zeroSectors(start, end - start, mayPunch, mustBeFast)) {
      return false;
    }
    if (offset < start) {
      write(offset, start - offset);
    }
    if (end < offset + length) {
      write(end, offset + length - end);
    }
    return true;
  }

  /** fallocate punches only if the device zeroes by itself; BLKZEROOUT writes if it does not. */
  private boolean zeroSectors(long offset, long length, boolean mayPunch, boolean mustBeFast)
      throws IOException {
    if (mayPunch && !cannotPunch) {
      if (works(() -> file.punchHole(offset, length))) {
        return true;
      }
      cannotPunch = true;
    }
    return !mustBeFast && works(() -> device.zeroOut(offset, length));
  }

  /** A call that the device may lack. */
  @FunctionalInterface
  private interface Call {
    void run() throws IOException;
  }

  private boolean works(Call call) throws IOException {
    try {
      call.run();
      return true;
    } catch (PosixException failure) {
      if (!failure.isUnsupported()) {
        throw failure;
      }
      Logger.debug("{}: the device lacks it: {}", name, failure.getMessage());
      return false;
    }
  }

  private void write(long offset, long length) throws IOException {
    ByteBuffer zeroes = ByteBuffer.allocateDirect((int) Math.min(length, 2L * sector));
    file.writeFully(zeroes.limit((int) length), offset);
  }

  /** Unknown until tried; a zero that has to be fast is refused then if it is not. */
  @Override
  public boolean isFast() {
    return true;
  }
}
