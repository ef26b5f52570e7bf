package nbd.fuzz;

import java.nio.ByteBuffer;
import java.util.BitSet;

/**
 * What a client may expect to read. Commands in flight together may be done in any order: what two
 * of them change is unsure until it is written again.
 */
final class Disk {
  private final byte[] bytes;
  private final BitSet unsure = new BitSet();

  /** Among the commands in flight now, and those since none was: what one changes, and several. */
  private final BitSet changing = new BitSet();

  private final BitSet disputed = new BitSet();

  Disk(int size) {
    bytes = new byte[size];
  }

  /** A command that may change a range is in flight. */
  void begin(int offset, int length) {
    BitSet range = new BitSet();
    range.set(offset, offset + length);
    range.and(changing);
    disputed.or(range);
    changing.set(offset, offset + length);
  }

  /** A command that changes a range has done it. */
  void end(int offset, ByteBuffer content) {
    content.duplicate().get(bytes, offset, content.remaining());
    unsure.clear(offset, offset + content.remaining());
  }

  /** Nobody can know what is in the range. */
  void lose(int offset, int length) {
    unsure.set(offset, offset + length);
  }

  /** Nothing is in flight. */
  void quiet() {
    unsure.or(disputed);
    changing.clear();
    disputed.clear();
  }

  /** Whether this may be what is there. */
  void expect(int offset, ByteBuffer read) {
    ByteBuffer known = ByteBuffer.wrap(bytes, offset, read.remaining());
    int wrong = known.mismatch(read);
    if (wrong < 0) {
      return;
    }
    for (int i = wrong; i < read.remaining(); i++) {
      int at = offset + i;
      StrictClient.check(
          bytes[at] == read.get(read.position() + i) || unsure.get(at) || changing.get(at),
          "at %d was read %d instead of %d",
          at,
          read.get(read.position() + i),
          bytes[at]);
    }
  }

  /** Whether a range may read as zeroes. */
  void expectZeroes(int offset, int length) {
    expect(offset, ByteBuffer.allocate(length));
  }

  /** Compares with what is really there, when nothing is in flight. */
  void compare(byte[] content) {
    quiet();
    expect(0, ByteBuffer.wrap(content));
  }
}
