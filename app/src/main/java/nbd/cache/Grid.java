package nbd.cache;

/**
 * The division of an export into blocks, and of these into sectors.
 *
 * @param size of the export, in bytes; the last block and its last sector may be shorter
 * @param blockShift the logarithm of the size of a block
 * @param sectorShift the logarithm of the size of a sector
 */
record Grid(long size, int blockShift, int sectorShift) {
  int blockSize() {
    return 1 << blockShift;
  }

  int sectorSize() {
    return 1 << sectorShift;
  }

  int sectorsPerBlock() {
    return 1 << (blockShift - sectorShift);
  }

  /** The number of the block that has a byte. */
  long blockOf(long offset) {
    return offset >>> blockShift;
  }

  /** Where a block begins. */
  long start(long number) {
    return number << blockShift;
  }

  /** The place of a byte in its block. */
  int inBlock(long offset) {
    return (int) offset & (blockSize() - 1);
  }

  /** How many of so many bytes lie in the block of the first one. */
  int inFirstBlock(long offset, long count) {
    return (int) Math.min(blockSize() - inBlock(offset), count);
  }

  /** How many bytes of a block the export has. */
  int bytesOf(long number) {
    return (int) Math.min(blockSize(), size - start(number));
  }

  /** How many sectors of a block the export has. */
  int sectorsOf(long number) {
    return endSector(bytesOf(number));
  }

  /** The sector that has a byte of a block. */
  int sector(int inBlock) {
    return inBlock >>> sectorShift;
  }

  /** The first sector that begins at or after a place in a block. */
  int endSector(int inBlock) {
    return (inBlock + sectorSize() - 1) >>> sectorShift;
  }

  /** Whether a place in the export or in a block is inside a sector. */
  boolean isInsideSector(long offset) {
    return (offset & (sectorSize() - 1)) != 0;
  }

  /** The next end of a sector from a place on; the export's end is one. */
  long alignedUp(long offset) {
    return Math.min(size, (offset + sectorSize() - 1) & -sectorSize());
  }

  /** The last end of a sector up to a place; the export's end is one. */
  long alignedDown(long offset) {
    return offset == size ? offset : offset & -sectorSize();
  }
}
