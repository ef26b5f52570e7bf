package nbd.control;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import nbd.protocol.Printable;

/**
 * The answer to a request: a line that says whether it succeeded, and behind success any number of
 * lines.
 */
public final class Answer {
  /** The first line of the answer to a request that succeeded. */
  static final String OK = "ok";

  /** Begins the line of a refusal; the message follows. */
  static final String REFUSED = "refused ";

  private static final Duration PATIENCE = Duration.ofSeconds(10);

  private Answer() {}

  /**
   * Sends an answer. A client that does not take it within ten seconds is cut.
   *
   * @param lines each with its end
   */
  public static void ok(SocketChannel channel, String lines) throws IOException {
    send(channel, OK + "\n" + lines);
  }

  /** Sends a refusal with a message for the user, which is made one line. */
  public static void refused(SocketChannel channel, String message) throws IOException {
    send(channel, REFUSED + Printable.line(message) + "\n");
  }

  static void send(SocketChannel channel, String text) throws IOException {
    ByteBuffer bytes = UTF_8.encode(text);
    try (Deadline _ = Deadline.of(channel, PATIENCE)) {
      while (bytes.hasRemaining()) {
        channel.write(bytes);
      }
    }
  }
}
