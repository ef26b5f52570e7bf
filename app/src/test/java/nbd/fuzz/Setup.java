package nbd.fuzz;

import java.util.List;

/**
 * The configuration of a server under test.
 *
 * @param size of the export, in bytes
 * @param minimum the smallest block
 * @param readOnly whether writing is refused
 * @param storage the way in which requests are done
 * @param memory for requests in flight, in bytes
 * @param most limit on the bytes that a call of the socket moves
 * @param many whether the server has many connections, and serves them by virtual threads
 * @param hasty whether the client waits for no answer
 * @param tls whether STARTTLS is offered
 * @param bitmap whether each export has a dirty bitmap
 */
public record Setup(
    long size,
    int minimum,
    boolean readOnly,
    Storage storage,
    long memory,
    int most,
    boolean many,
    boolean hasty,
    boolean tls,
    boolean bitmap) {
  /** The names of the export. */
  public static final List<String> NAMES = List.of("", "disk");

  /** The export's description. */
  public static final String DESCRIPTION = "for tests";

  /** The longest payload: the least that the protocol allows. */
  public static final int MAXIMUM_PAYLOAD = 1 << 20;

  /** The ways in which requests are done. */
  public enum Storage {
    /** At once, by the connection's thread. */
    NEAR,
    /** Each by a thread of its own. */
    SLOW,
    /** Begun by the connection's thread, and ended by another one in any order. */
    FAR
  }

  /** Takes two bytes; zeroes mean the usual. */
  static Setup of(Choices choices) {
    int what = choices.u8();
    int how = choices.u8();
    int minimum = new int[] {1, 512, 4096, 1}[what & 3];
    long size = new long[] {200_704, 4096, 1_503_232, 0}[what >> 2 & 3];
    return new Setup(
        size,
        minimum,
        (what & 0x10) != 0,
        Storage.values()[(what >> 5 & 3) % 3],
        (how & 1) == 0 ? 64L << 20 : 0,
        new int[] {Integer.MAX_VALUE, 1, 29, 5000}[how >> 1 & 3],
        (how & 8) != 0,
        (how & 16) != 0,
        (how & 32) != 0,
        (how & 64) != 0);
  }

  /** Returns the name of an export's bitmap; empty if it has none. */
  public String bitmapOf(String export) {
    return bitmap ? "of-" + export : "";
  }
}
