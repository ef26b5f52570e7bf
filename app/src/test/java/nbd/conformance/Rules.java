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
import static nbd.testing.RawClient.BLOCK_STATUS;
import static nbd.testing.RawClient.CACHE;
import static nbd.testing.RawClient.DF;
import static nbd.testing.RawClient.EINVAL;
import static nbd.testing.RawClient.ENOSPC;
import static nbd.testing.RawClient.ENOTSUP;
import static nbd.testing.RawClient.EPERM;
import static nbd.testing.RawClient.FAST_ZERO;
import static nbd.testing.RawClient.FLUSH;
import static nbd.testing.RawClient.FUA;
import static nbd.testing.RawClient.NO_HOLE;
import static nbd.testing.RawClient.PAYLOAD_LEN;
import static nbd.testing.RawClient.READ;
import static nbd.testing.RawClient.REQ_ONE;
import static nbd.testing.RawClient.TRIM;
import static nbd.testing.RawClient.WRITE;
import static nbd.testing.RawClient.WRITE_ZEROES;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.Set;
import java.util.TreeSet;
import nbd.protocol.BlockSizes;
import nbd.protocol.TransmissionFlag;
import nbd.testing.CheckedClient;
import nbd.testing.CheckedClient.Answer;
import nbd.testing.Replies;

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
  /** Makes the table for a client of the conformance tests. */
  Rules(CheckedClient client, BlockSizes sizes) {
    this(
        client.export().flags(),
        client.replies() == Replies.EXTENDED,
        client.replies() != Replies.SIMPLE,
        client.export().size(),
        sizes);
  }

  /** Sends a request, and checks its answer by the table. */
  Answer check(CheckedClient client, int flags, int type, long offset, long length, byte... payload)
      throws IOException {
    Set<Integer> errors = errors(flags, type, offset, length);
    Answer answer = client.ask(flags, type, offset, length, payload);
    assertThat(answer.error())
        .as("type %d flags %x length %x at %x", type, flags, length, offset)
        .isIn(errors.isEmpty() ? Set.of(0) : errors);
    if (answer.error() != 0 && client.replies() != Replies.SIMPLE) {
      assertThat(answer.message()).as("a sentence that says why").contains(" ");
      assertThat(answer.types()).containsExactly(0x8001);
    }
    return answer;
  }

  private boolean has(TransmissionFlag flag) {
    return (told & flag.bit()) != 0;
  }

  /** Says whether the server understands the command, as far as it has told the client. */
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

  /** Returns the flags that may be used with a command that is understood. */
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
