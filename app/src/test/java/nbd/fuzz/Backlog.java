package nbd.fuzz;

import java.nio.ByteBuffer;

/** The bytes of one direction that have not been taken yet. */
final class Backlog {
  private ByteBuffer bytes = ByteBuffer.allocate(1 << 10).limit(0);

  void add(byte... more) {
    if (bytes.capacity() - bytes.limit() < more.length) {
      int needed = bytes.remaining() + more.length;
      ByteBuffer larger = needed * 2L > bytes.capacity() ? ByteBuffer.allocate(2 * needed) : bytes;
      int left = bytes.remaining();
      larger.put(0, bytes, bytes.position(), left).position(0).limit(left);
      bytes = larger;
    }
    int end = bytes.limit();
    bytes.limit(end + more.length).put(end, more);
  }

  int length() {
    return bytes.remaining();
  }

  int u16(int at) {
    return Short.toUnsignedInt(bytes.getShort(bytes.position() + at));
  }

  int i32(int at) {
    return bytes.getInt(bytes.position() + at);
  }

  long u32(int at) {
    return Integer.toUnsignedLong(i32(at));
  }

  long i64(int at) {
    return bytes.getLong(bytes.position() + at);
  }

  void drop(int count) {
    bytes.position(bytes.position() + count);
  }

  ByteBuffer take(int count) {
    byte[] taken = new byte[count];
    bytes.get(taken);
    return ByteBuffer.wrap(taken);
  }
}
