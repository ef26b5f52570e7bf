package nbd.check;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;
import nbd.client.ClientSettings;
import nbd.client.ExportInfo;
import nbd.client.NbdClient;
import nbd.client.NbdUri;
import nbd.protocol.CommandFlags;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Capability;

/**
 * The part of an export that a check overwrites.
 *
 * @param uri of the export
 * @param settings for every connection
 * @param export the export's description, as one connection got it
 * @param offset where the region begins, in bytes
 * @param length of the region, in bytes
 * @param unit the size of a sector, in bytes: requests are multiples of it, and so are offset and
 *     length
 */
public record Target(
    NbdUri uri, ClientSettings settings, ExportInfo export, long offset, long length, int unit) {
  /** The fewest sectors that can be checked. */
  public static final int FEWEST_SECTORS = 64;

  /** The region's length where the user names none and the export is not shorter. */
  private static final long USUAL_LENGTH = 64 << 20;

  private static final int SMALLEST_UNIT = 512;
  private static final long RETRY_NANOS = 20_000_000;

  /** Takes the beginning of an export; asks the server for its description. */
  public static Target open(NbdUri uri, ClientSettings settings) throws IOException {
    ExportInfo export = describe(uri, settings);
    int unit = unit(export);
    long length = Math.min(USUAL_LENGTH, export.size());
    return checked(new Target(uri, settings, export, 0, length - length % unit, unit));
  }

  /** Takes a region of an export; asks the server for its description. */
  public static Target open(NbdUri uri, ClientSettings settings, long offset, long length)
      throws IOException {
    ExportInfo export = describe(uri, settings);
    return checked(new Target(uri, settings, export, offset, length, unit(export)));
  }

  private static ExportInfo describe(NbdUri uri, ClientSettings settings) throws IOException {
    try (NbdClient client = NbdClient.connect(uri, uri.exportName(), settings)) {
      return client.export();
    }
  }

  private static int unit(ExportInfo export) {
    return Math.max(SMALLEST_UNIT, export.blockSizes().minimum());
  }

  private static Target checked(Target target) throws IOException {
    long size = target.export.size();
    refuseIf(
        target.export.has(TransmissionFlag.READ_ONLY),
        target.uri + ": the export is read-only; check has to write");
    refuseIf(
        target.offset % target.unit != 0 || target.length % target.unit != 0,
        "%s: the region has to begin and end at a multiple of %d bytes"
            .formatted(target.uri, target.unit));
    refuseIf(
        target.offset > size || target.length > size - target.offset,
        "%s: the region reaches past the export's end at %d".formatted(target.uri, size));
    refuseIf(
        target.sectors() < FEWEST_SECTORS,
        "%s: %d bytes are too few to check; it takes %d"
            .formatted(target.uri, target.length, FEWEST_SECTORS * target.unit));
    return target;
  }

  private static void refuseIf(boolean wrong, String message) throws IOException {
    if (wrong) {
      throw new IOException(message);
    }
  }

  /** Connects to the export. */
  public NbdClient connect() throws IOException {
    return NbdClient.connect(uri, uri.exportName(), settings);
  }

  /**
   * Writes so that every later read knows it. The flush before it covers what closed connections
   * have left, which a server may otherwise store later, and then rightly.
   */
  void overwrite(ByteBuffer data, long at) throws IOException {
    try (NbdClient client = connect()) {
      boolean canFlush = client.capabilities().has(Capability.FLUSH);
      if (canFlush) {
        client.flush();
      }
      client.write(data, at, CommandFlags.NONE);
      if (canFlush) {
        client.flush();
      }
    }
  }

  /**
   * Connects as soon as the server can be reached: it may be starting, or not have noticed yet that
   * another connection has ended.
   *
   * @param goesOn asked before each attempt but the first
   */
  NbdClient connect(BooleanSupplier goesOn) throws IOException {
    long giveUp = System.nanoTime() + settings.connectTimeout().toNanos();
    while (true) {
      try {
        return connect();
      } catch (IOException notYet) {
        if (System.nanoTime() - giveUp > 0 || !goesOn.getAsBoolean()) {
          throw notYet;
        }
        LockSupport.parkNanos(RETRY_NANOS);
      }
    }
  }

  /** Returns the number of sectors of the region. */
  public long sectors() {
    return length / unit;
  }

  /** Returns where a sector of the region begins in the export, in bytes. */
  public long offsetOf(long sector) {
    return offset + sector * unit;
  }
}
