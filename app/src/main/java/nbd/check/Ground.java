package nbd.check;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import nbd.client.NbdClient;

/**
 * The sectors on which scripts run. A batch of them is written, flushed, and read back on a new
 * connection, before scripts take them piece by piece. When the region is used up it begins anew.
 */
final class Ground {
  /** Pieces begin at a multiple of this many sectors, as the blocks of a server's cache do. */
  private static final int ALIGNMENT = 8;

  private static final int TAG_BITS = 24;
  private static final int MOST_BYTES = 1 << 20;

  private final Target target;
  private final int mostSectors;
  private final ByteBuffer batch;
  private long start;
  private int used;
  private int prepared;

  /** Unlike the tags of an earlier check, which the export may still hold. */
  private long firstTag = ThreadLocalRandom.current().nextLong(1L << 30, 1L << 38) << TAG_BITS;

  /**
   * A piece for one script.
   *
   * @param sector the first, counted from the target's first sector
   * @param tag the smallest of the script's own tags, less 1
   * @param first the first contents of the sectors: the tag of each
   */
  record Piece(long sector, long tag, List<Long> first) {}

  Ground(Target target) {
    this.target = target;
    int unit = target.unit();
    this.mostSectors =
        (int) Math.min(Math.max(MOST_BYTES / unit, Target.FEWEST_SECTORS), target.sectors());
    this.batch = ByteBuffer.allocateDirect(mostSectors * unit);
  }

  /** Returns the number of pieces that can be in use at a time. */
  int mostPieces(int sectors) {
    return mostSectors / aligned(sectors);
  }

  /** Gives up the pieces that are left, which a restart of the server may have changed. */
  void discard() {
    used = prepared;
  }

  private static int aligned(int sectors) {
    return Math.max(1, Math.ceilDiv(sectors, ALIGNMENT)) * ALIGNMENT;
  }

  /**
   * Returns pieces of so many sectors that no script has used since they were written and flushed.
   */
  List<Piece> take(int pieces, int sectors) throws IOException {
    if (pieces > mostPieces(sectors)) {
      throw new IOException(
          "%s: the region has too few sectors for a script of %d".formatted(target.uri(), sectors));
    }
    int needed = pieces * aligned(sectors);
    if (used + needed > prepared) {
      prepare(needed);
    }
    List<Piece> taken = new ArrayList<>();
    for (int i = 0; i < pieces; i++) {
      taken.add(piece(sectors));
    }
    return taken;
  }

  private Piece piece(int sectors) {
    List<Long> first = new ArrayList<>();
    for (int i = 0; i < sectors; i++) {
      first.add(batch.getLong((used + i) * target.unit()));
    }
    Piece piece = new Piece(start + used, tag(used), first);
    used += aligned(sectors);
    return piece;
  }

  private void prepare(int needed) throws IOException {
    start += prepared;
    if (start + needed > target.sectors()) {
      start = 0;
    }
    int unit = target.unit();
    firstTag += (long) prepared << TAG_BITS;
    prepared = (int) Math.min(target.sectors() - start, mostSectors);
    used = 0;
    batch.clear().limit(prepared * unit);
    for (int sector = 0; sector < prepared; sector++) {
      Tags.fill(batch.slice(sector * unit, unit), unit, tag(sector));
    }
    long offset = target.offsetOf(start);
    target.overwrite(batch, offset);
    // What a script shows has to be its own fault, also where these writes were lost.
    try (NbdClient client = target.connect()) {
      client.read(batch.flip(), offset);
    }
  }

  private long tag(int sector) {
    return firstTag + ((long) sector << TAG_BITS);
  }
}
