package nbd.multiconn;

import java.io.IOException;
import java.nio.ByteBuffer;
import nbd.protocol.CommandFlags;
import nbd.storage.Handle;

/** The calls of a handle as tests need them: with any data, and in threads of their own. */
final class Calls {
  private Calls() {}

  static void read(Handle handle) throws IOException {
    handle.read(ByteBuffer.allocate(512), 0);
  }

  static void write(Handle handle) throws IOException {
    handle.write(ByteBuffer.allocate(512), 0, CommandFlags.NONE);
  }

  static void zero(Handle handle) throws IOException {
    handle.zero(0, 512, CommandFlags.NONE);
  }

  static void trim(Handle handle) throws IOException {
    handle.trim(0, 512, CommandFlags.NONE);
  }
}
