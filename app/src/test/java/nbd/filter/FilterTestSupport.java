package nbd.filter;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import nbd.protocol.CommandFlags;
import nbd.storage.Handle;

/** Text in and out of handles. */
final class FilterTestSupport {
  private FilterTestSupport() {}

  static void write(Handle handle, long offset, String text) throws IOException {
    handle.write(
        ByteBuffer.wrap(text.getBytes(StandardCharsets.US_ASCII)), offset, CommandFlags.NONE);
  }

  /** Reads, with a dot for each zero. */
  static String read(Handle handle, long offset, int length) throws IOException {
    ByteBuffer data = ByteBuffer.allocate(length);
    handle.read(data, offset);
    return new String(data.array(), StandardCharsets.US_ASCII).replace('\0', '.');
  }
}
