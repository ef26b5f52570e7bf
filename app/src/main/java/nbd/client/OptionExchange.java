package nbd.client;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Optional;
import nbd.protocol.Magic;
import nbd.protocol.Option;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReply;
import nbd.protocol.OptionReplyType;
import nbd.protocol.OptionRequest;
import nbd.protocol.ProtocolException;
import nbd.protocol.WireInput;

/** The options of a handshake and their replies, as far as all options have them in common. */
final class OptionExchange {
  /** Limit on the data of one reply: no reply of the protocol needs more. */
  private static final int MOST_DATA = 1 << 16;

  /** Limit on the replies to one option. */
  private static final int MOST_TOTAL = 16 << 20;

  private final Wire wire;
  private final WireInput in;

  OptionExchange(Wire wire, WireInput in) {
    this.wire = wire;
    this.in = in;
  }

  /** Takes the data of a reply that is not the last one. */
  @FunctionalInterface
  interface Piece {
    void take(ByteBuffer data) throws IOException;
  }

  /** Sends an option without waiting for a reply. */
  void send(Option option, byte... data) throws IOException {
    ByteBuffer bytes = ByteBuffer.allocate(OptionRequest.BYTES + data.length);
    bytes.putLong(Magic.OPTION).putInt(option.code()).putInt(data.length).put(data);
    wire.write(bytes.flip());
  }

  /** Sends an option without data, which has only one reply; the result is as in the other. */
  Optional<OptionReply> ask(Option option) throws IOException {
    return ask(option, new byte[0], OptionReplyType.ACK, _ -> {});
  }

  /**
   * Sends an option, and takes its replies up to the last one.
   *
   * @param type of the replies before the last one
   * @return the error with which the server refuses the option; empty if it acknowledges it
   */
  Optional<OptionReply> ask(Option option, byte[] data, OptionReplyType type, Piece piece)
      throws IOException {
    send(option, data);
    long bytes = 0;
    while (true) {
      OptionReply reply = OptionReply.read(in, option, MOST_DATA);
      if (reply.type().isError()) {
        return Optional.of(reply);
      }
      if (reply.type() == OptionReplyType.ACK) {
        if (reply.data().hasRemaining()) {
          throw new ProtocolException("the server's ACK of %s has data".formatted(option));
        }
        return Optional.empty();
      }
      if (reply.type() != type) {
        throw new ProtocolException("the server answered %s by %s".formatted(option, reply.type()));
      }
      bytes += Long.BYTES + reply.data().remaining();
      if (bytes > MOST_TOTAL) {
        throw new ProtocolException(
            "the server's answer to %s is longer than %d bytes".formatted(option, MOST_TOTAL));
      }
      piece.take(reply.data());
    }
  }

  /**
   * Throws the error of {@link #ask}, if there is one.
   *
   * @param what is refused, for the message: "the export is"
   */
  static void throwIfRefused(Optional<OptionReply> error, String what) throws OptionException {
    if (error.isEmpty()) {
      return;
    }
    OptionReplyType type = error.get().type();
    String text = text(error.get().data());
    String hint =
        switch (type) {
          case ERR_TLS_REQD -> " (use nbds:// or nbds+unix://)";
          case ERR_SHUTDOWN -> " (the server is shutting down)";
          default -> "";
        };
    throw new OptionException(
        type, "%s refused: %s%s%s".formatted(what, type, text.isEmpty() ? "" : ": " + text, hint));
  }

  /** Decodes a text for people, which need not be one line of UTF-8. */
  static String text(ByteBuffer data) {
    return StandardCharsets.UTF_8.decode(data).toString().replaceAll("\\p{Cntrl}+", " ").strip();
  }
}
