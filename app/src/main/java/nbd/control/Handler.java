package nbd.control;

import java.io.IOException;
import java.nio.channels.SocketChannel;
import java.util.List;

/** The server's side of one kind of request. Called by a thread for each request. */
@FunctionalInterface
public interface Handler {
  /**
   * Answers a request, by {@link Answer}.
   *
   * @param arguments the request's line behind its first word, without the end of the line; {@link
   *     Words#split} splits it
   * @param channel to the client, in blocking mode; nothing was read behind the line. It is closed
   *     when this returns.
   * @throws IOException if it cannot be answered; the message is for the user, who gets it if
   *     nothing was answered yet
   */
  void handle(String arguments, SocketChannel channel) throws IOException;

  /** The answer to a request, as text. */
  @FunctionalInterface
  interface Question {
    /**
     * Answers a request.
     *
     * @return lines, each with its end
     * @throws IllegalArgumentException if the arguments are wrong; the message is for the user
     * @throws IOException if it cannot be answered; the message is for the user
     */
    String answer(List<String> arguments) throws IOException;
  }

  /** Makes a handler of a question, whose arguments are split into words. */
  static Handler of(Question question) {
    return (arguments, channel) -> Answer.ok(channel, question.answer(Words.split(arguments)));
  }
}
