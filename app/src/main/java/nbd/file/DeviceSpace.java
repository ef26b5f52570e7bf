package nbd.file;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.file.OpenFile.Traits;
import nbd.posix.BlockDevice;
import nbd.posix.PosixFile;

/**
 * A block device's space. The device gives back and zeroes whole sectors only: parts of sectors at
 * the ends of a range are kept by a discard, and written by a zero.
 */
final class DeviceSpace implements Space {
  private final PosixFile file;
  private final BlockDevice device;
  private final int sector;
  private final OptionalCall discard;
  private final OptionalCall punchHole;
  private final OptionalCall zeroOut;

  DeviceSpace(PosixFile file, BlockDevice device, String name) throws IOException {
    this.file = file;
    this.device = device;
    this.sector = device.sectorSize();
    this.discard = new OptionalCall(name);
    this.punchHole = new OptionalCall(name);
    this.zeroOut = new OptionalCall(name);
  }

  private long up(long offset) {
    return -(-offset & -sector);
  }

  private long down(long offset) {
    return offset & -sector;
  }

  @Override
  public long size() throws IOException {
    return device.size();
  }

  /** Takes zeroing for fast; if the device would write zeroes, a zero that must be fast fails. */
  @Override
  public Traits traits(boolean writesDurably) throws IOException {
    return new Traits(
        false, writesDurably, writesDurably, true, device.isRotational(), Math.max(4096, sector));
  }

  @Override
  public void discard(long offset, long length) throws IOException {
    long start = up(offset);
    long end = down(offset + length);
    if (start < end) {
      discard.make(() -> device.discard(start, end - start));
    }
  }

  @Override
  public boolean zero(long offset, long length, boolean mayPunch, boolean mustBeFast)
      throws IOException {
    long start = up(offset);
    long end = down(offset + length);
    if (start >= end) {
      // Nothing is faster for less than a sector.
      write(offset, length);
      return true;
    }
    if (!zeroSectors(start, end - start, mayPunch, mustBeFast)) {
      return false;
    }
    write(offset, start - offset);
    write(end, offset + length - end);
    return true;
  }

  /** fallocate punches only if the device zeroes by itself; BLKZEROOUT writes if it does not. */
  private boolean zeroSectors(long offset, long length, boolean mayPunch, boolean mustBeFast)
      throws IOException {
    return (mayPunch && punchHole.make(() -> file.punchHole(offset, length)))
        || (!mustBeFast && zeroOut.make(() -> device.zeroOut(offset, length)));
  }

  /** Writes zeroes, fewer than two sectors, or none. */
  private void write(long offset, long length) throws IOException {
    if (length > 0) {
      file.write(ByteBuffer.allocateDirect((int) length), offset);
    }
  }
}
