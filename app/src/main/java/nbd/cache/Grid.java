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

  /** Gives the number of the block that has a byte. */
  long blockOf(long offset) {
    return offset >>> blockShift;
  }

  /** Gives the offset at which a block begins. */
  long start(long number) {
    return number << blockShift;
  }

  /** Gives the place of a byte in its block. */
  int inBlock(long offset) {
    return (int) offset & (blockSize() - 1);
  }

  /** Counts those of so many bytes that lie in the block of the first one. */
  int inFirstBlock(long offset, long count) {
    return (int) Math.min(blockSize() - inBlock(offset), count);
  }

  /** Counts the bytes of a block: the last one may be shorter. */
  int bytesOf(long number) {
    return (int) Math.min(blockSize(), size - start(number));
  }

  /** Counts the sectors of a block, of which the last one may be shorter. */
  int sectorsOf(long number) {
    return endSector(bytesOf(number));
  }

  /** Gives the sector that has a byte of a block. */
  int sector(int inBlock) {
    return inBlock >>> sectorShift;
  }

  /** Gives the first sector that begins at or after a place in a block. */
  int endSector(int inBlock) {
    return (inBlock + sectorSize() - 1) >>> sectorShift;
  }

  /** Says whether a place in the export or in a block is inside a sector, not at its end. */
  boolean isInsideSector(long offset) {
    return (offset & (sectorSize() - 1)) != 0;
  }

  /** Gives the next end of a sector from a place on; the export's end is one. */
  long alignedUp(long offset) {
    return Math.min(size, (offset + sectorSize() - 1) & -sectorSize());
  }

  /** Gives the last end of a sector up to a place; the export's end is one. */
  long alignedDown(long offset) {
    return offset == size ? offset : offset & -sectorSize();
  }
}
