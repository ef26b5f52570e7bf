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

/**
 * The protocol's table of errors, in the protocol's own words: everything that is wrong with a
 * request on an export of which a client was told this. Where several things are, any of them may
 * be the answer.
 *
 * @param talk the client
 * @param sizes what the client was told of block sizes
 */
record Rules(Talk talk, BlockSizes sizes) {
  static final int FUA = 1;
  static final int NO_HOLE = 2;
  static final int DF = 4;
  static final int REQ_ONE = 8;
  static final int FAST_ZERO = 0x10;
  static final int PAYLOAD_LEN = 0x20;

  static final int READ = 0;
  static final int WRITE = 1;
  static final int FLUSH = 3;
  static final int TRIM = 4;
  static final int CACHE = 5;
  static final int WRITE_ZEROES = 6;
  static final int BLOCK_STATUS = 7;
  static final int RESIZE = 8;

  private static final int EPERM = 1;
  private static final int EINVAL = 22;
  private static final int ENOSPC = 28;
  private static final int ENOTSUP = 95;

  /** Checks an outcome. */
  static void expect(Talk.Outcome outcome, int error, String what) {
    assertThat(outcome.error()).as(what).isEqualTo(error);
  }

  /** Whether the server said that it understands the command. */
  boolean understood(int type) {
    return switch (type) {
      case READ, WRITE -> true;
      case FLUSH -> talk.told(SEND_FLUSH);
      case TRIM -> talk.told(SEND_TRIM);
      case CACHE -> talk.told(SEND_CACHE);
      case WRITE_ZEROES -> talk.told(SEND_WRITE_ZEROES);
      case BLOCK_STATUS -> talk.replies() != Replies.SIMPLE;
      default -> false;
    };
  }

  /** The flags that may be used with a command that is understood. */
  private int allowed(int type) {
    int fua = talk.told(SEND_FUA) ? FUA : 0;
    return switch (type) {
      case READ -> fua | (talk.told(SEND_DF) ? DF : 0);
      case WRITE -> fua | talk.writeFlags();
      case WRITE_ZEROES -> fua | NO_HOLE | (talk.told(SEND_FAST_ZERO) ? FAST_ZERO : 0);
      case BLOCK_STATUS -> fua | REQ_ONE | (talk.told(BLOCK_STATUS_PAYLOAD) ? PAYLOAD_LEN : 0);
      default -> fua;
    };
  }

  /**
   * The errors of which one has to answer a request; empty if it has to succeed.
   *
   * @param offset unsigned
   * @param length unsigned
   */
  Set<Integer> errors(int flags, int type, long offset, long length) {
    Set<Integer> errors = new TreeSet<>();
    boolean writes = type == WRITE || type == TRIM || type == WRITE_ZEROES;
    if (writes && talk.told(READ_ONLY)) {
      errors.add(EPERM);
    }
    boolean required = type == WRITE && (flags & talk.writeFlags()) != talk.writeFlags();
    boolean refused = (flags & ~allowed(type)) != 0;
    if (!understood(type) || refused || required) {
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
    long size = talk.export().size();
    boolean past = Long.compareUnsigned(offset, size) > 0;
    if (past || Long.compareUnsigned(length, size - offset) > 0) {
      errors.add(type == WRITE || type == WRITE_ZEROES ? ENOSPC : EINVAL);
    }
  }
}
