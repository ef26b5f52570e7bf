package nbd.fuzz;

import java.nio.ByteBuffer;
import java.util.BitSet;

/**
 * The content of the export as far as a client knows it. Commands in flight together may be done in
 * any order: the content of a range that two of them change is unknown until it is written again.
 */
final class Disk {
  private final byte[] bytes;
  private final BitSet unsure = new BitSet();

  /** The bytes that one command changes, and that several do, since none was in flight last. */
  private final BitSet changing = new BitSet();

  private final BitSet disputed = new BitSet();

  Disk(int size) {
    bytes = new byte[size];
  }

  /** Notes that a command which may change a range is in flight. */
  void begin(int offset, int length) {
    BitSet range = new BitSet();
    range.set(offset, offset + length);
    range.and(changing);
    disputed.or(range);
    changing.set(offset, offset + length);
  }

  /** Notes the new content of a range. */
  void end(int offset, ByteBuffer content) {
    content.duplicate().get(bytes, offset, content.remaining());
    unsure.clear(offset, offset + content.remaining());
  }

  /** Notes that the content of a range is unknown. */
  void lose(int offset, int length) {
    unsure.set(offset, offset + length);
  }

  /** Notes that no command is in flight. */
  void quiet() {
    unsure.or(disputed);
    changing.clear();
    disputed.clear();
  }

  /** Checks data that was read. */
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

  /** Checks that a range may read as zeroes. */
  void expectZeroes(int offset, int length) {
    expect(offset, ByteBuffer.allocate(length));
  }

  /** Checks the storage's content, when no command is in flight. */
  void compare(byte[] content) {
    quiet();
    expect(0, ByteBuffer.wrap(content));
  }
}
