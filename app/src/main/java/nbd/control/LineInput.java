package nbd.control;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.CharacterCodingException;

/** The reading of one line, and of nothing behind it. */
final class LineInput {
  private LineInput() {}

  /**
   * Reads a line.
   *
   * @param most limit on its length, in bytes
   * @return the line, without its end
   * @throws EOFException if the stream ends before the line
   * @throws IOException if the line is too long or not UTF-8; the message is for the user
   */
  static String read(SocketChannel channel, int most) throws IOException {
    // Byte by byte: what follows the line is for somebody else, perhaps with descriptors.
    ByteBuffer line = ByteBuffer.allocate(most);
    ByteBuffer next = ByteBuffer.allocate(1);
    while (true) {
      if (channel.read(next.clear()) < 0) {
        throw new EOFException("the stream ended before the end of a line");
      }
      byte read = next.get(0);
      if (read == '\n') {
        break;
      }
      if (!line.hasRemaining()) {
        throw new IOException("the line is longer than " + most + " bytes");
      }
      line.put(read);
    }
    try {
      return UTF_8.newDecoder().decode(line.flip()).toString();
    } catch (CharacterCodingException garbage) {
      throw new IOException("the line is not UTF-8", garbage);
    }
  }
}
