package nbd.conformance;

import static nbd.protocol.TransmissionFlag.BLOCK_STATUS_PAYLOAD;
import static nbd.protocol.TransmissionFlag.READ_ONLY;
import static nbd.protocol.TransmissionFlag.SEND_CACHE;
import static nbd.protocol.TransmissionFlag.SEND_DF;
import static nbd.protocol.TransmissionFlag.SEND_FAST_ZERO;
import static nbd.protocol.TransmissionFlag.SEND_FLUSH;
import static nbd.protocol.TransmissionFlag.SEND_FUA;
import static nbd.protocol.TransmissionFlag.SEND_TRIM;
import static nbd.protocol.TransmissionFlag.SEND_WRITE_ZEROES;
import static org.assertj.core.api.Assertions.assertThat;

import java.util.Set;
import java.util.TreeSet;
import nbd.protocol.BlockSizes;
import nbd.protocol.TransmissionFlag;

/**
 * The protocol's table of errors: everything that is wrong with a request. Where several things are
 * wrong, the server may answer with the error of any of them.
 *
 * @param told the transmission flags that the server sent
 * @param extended whether requests have extended headers
 * @param extents whether the client has selected base:allocation
 * @param size of the export, in bytes
 * @param sizes the block sizes that the server sent
 */
public record Rules(int told, boolean extended, boolean extents, long size, BlockSizes sizes) {
  static final int FUA = 1;
  static final int NO_HOLE = 2;
  public static final int DF = 4;
  public static final int REQ_ONE = 8;
  public static final int FAST_ZERO = 0x10;
  public static final int PAYLOAD_LEN = 0x20;

  public static final int READ = 0;
  public static final int WRITE = 1;
  public static final int FLUSH = 3;
  public static final int TRIM = 4;
  static final int CACHE = 5;
  public static final int WRITE_ZEROES = 6;
  public static final int BLOCK_STATUS = 7;
  static final int RESIZE = 8;

  private static final int EPERM = 1;
  private static final int EINVAL = 22;
  private static final int ENOSPC = 28;
  private static final int ENOTSUP = 95;

  /** Makes the table for a client of the conformance tests. */
  Rules(Talk talk, BlockSizes sizes) {
    this(
        talk.export().flags(),
        talk.replies() == Replies.EXTENDED,
        talk.replies() != Replies.SIMPLE,
        talk.export().size(),
        sizes);
  }

  /** Checks an outcome. */
  static void expect(Talk.Outcome outcome, int error, String what) {
    assertThat(outcome.error()).as(what).isEqualTo(error);
  }

  private boolean has(TransmissionFlag flag) {
    return (told & flag.bit()) != 0;
  }

  /** Whether the server said that it understands the command. */
  private boolean understood(int type) {
    return switch (type) {
      case READ, WRITE -> true;
      case FLUSH -> has(SEND_FLUSH);
      case TRIM -> has(SEND_TRIM);
      case CACHE -> has(SEND_CACHE);
      case WRITE_ZEROES -> has(SEND_WRITE_ZEROES);
      case BLOCK_STATUS -> extents;
      default -> false;
    };
  }

  /** The flags that may be used with a command that is understood. */
  private int allowed(int type) {
    int fua = has(SEND_FUA) ? FUA : 0;
    return switch (type) {
      case READ -> fua | (has(SEND_DF) ? DF : 0);
      case WRITE -> fua | (extended ? PAYLOAD_LEN : 0);
      case WRITE_ZEROES -> fua | NO_HOLE | (has(SEND_FAST_ZERO) ? FAST_ZERO : 0);
      case BLOCK_STATUS -> fua | REQ_ONE | (has(BLOCK_STATUS_PAYLOAD) ? PAYLOAD_LEN : 0);
      default -> fua;
    };
  }

  /**
   * Lists the errors of which one has to answer a request: none if it has to succeed, and 0 among
   * them if it may.
   *
   * @param offset unsigned
   * @param length unsigned
   */
  public Set<Integer> errors(int flags, int type, long offset, long length) {
    Set<Integer> errors = new TreeSet<>();
    boolean writes = type == WRITE || type == TRIM || type == WRITE_ZEROES;
    if (writes && has(READ_ONLY)) {
      errors.add(EPERM);
    }
    boolean lacksLength = extended && type == WRITE && (flags & PAYLOAD_LEN) == 0;
    if (!understood(type) || (flags & ~allowed(type)) != 0 || lacksLength) {
      errors.add(EINVAL);
    }
    addOfRange(errors, type, offset, length);
    if (type == WRITE_ZEROES && (flags & FAST_ZERO) != 0 && errors.isEmpty()) {
      errors.add(ENOTSUP);
      errors.add(0);
    }
    return errors;
  }

  private void addOfRange(Set<Integer> errors, int type, long offset, long length) {
    if (type == FLUSH) {
      if (offset != 0 || length != 0) {
        errors.add(EINVAL);
      }
      return;
    }
    boolean payload = type == READ || type == WRITE;
    if (payload && Long.compareUnsigned(length, sizes.maximumPayload()) > 0) {
      errors.add(EINVAL);
    }
    if (type == BLOCK_STATUS && length == 0) {
      errors.add(EINVAL);
    }
    if (((offset | length) & (sizes.minimum() - 1)) != 0) {
      errors.add(EINVAL);
    }
    boolean past = Long.compareUnsigned(offset, size) > 0;
    if (past || Long.compareUnsigned(length, size - offset) > 0) {
      errors.add(type == WRITE || type == WRITE_ZEROES ? ENOSPC : EINVAL);
    }
  }
}
