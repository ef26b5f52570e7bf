package nbd.client;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Optional;
import nbd.protocol.Magic;
import nbd.protocol.Option;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReply;
import nbd.protocol.OptionReplyHeader;
import nbd.protocol.OptionReplyType;
import nbd.protocol.OptionRequest;
import nbd.protocol.ProtocolException;
import nbd.protocol.WireInput;

/** Sends options and takes their replies; checks all that can be checked of any of them. */
final class OptionExchange {
  /** More than any reply of the protocol needs. */
  private static final int MOST_DATA = 1 << 16;

  private final Wire wire;
  private final WireInput in;

  OptionExchange(Wire wire, WireInput in) {
    this.wire = wire;
    this.in = in;
  }

  /** Sends an option without data. */
  void send(Option option) throws IOException {
    send(option, ByteBuffer.allocate(0));
  }

  /** Sends an option. */
  void send(Option option, ByteBuffer data) throws IOException {
    ByteBuffer bytes = ByteBuffer.allocate(OptionRequest.BYTES + data.remaining());
    bytes.putLong(Magic.OPTION).putInt(option.code()).putInt(data.remaining()).put(data);
    wire.write(bytes.flip());
  }

  /**
   * Waits for a reply, whatever it says.
   *
   * @throws ProtocolException if it is none to this option
   */
  OptionReply next(Option option) throws IOException {
    OptionReplyHeader header = OptionReplyHeader.read(in);
    if (header.option() != option.code()) {
      throw new ProtocolException(
          "the server answered option %d where %s was sent".formatted(header.option(), option));
    }
    if (header.length() > MOST_DATA) {
      throw new ProtocolException(
          "the server's answer to %s has %d bytes".formatted(option, header.length()));
    }
    byte[] data = new byte[(int) header.length()];
    in.readFully(ByteBuffer.wrap(data));
    Optional<OptionReplyType> known = OptionReplyType.of(header.type());
    if (known.isEmpty() && header.type() >= 0) {
      throw new ProtocolException(
          "the server answered %s by a reply of the unknown type %d"
              .formatted(option, header.type()));
    }
    // An error that is not known is an error all the same; which, is only for people.
    OptionReplyType type = known.orElse(OptionReplyType.ERR_INVALID);
    return new OptionReply(type, ByteBuffer.wrap(data));
  }

  /**
   * Waits for a reply.
   *
   * @param what is being done, for the message: "the export is"
   * @throws OptionException if it is an error
   */
  OptionReply nextUnlessRefused(Option option, String what) throws IOException {
    OptionReply reply = next(option);
    if (reply.type().isError()) {
      throw refusal(reply, what);
    }
    return reply;
  }

  /** Waits for the end of an option that has no other reply. */
  void expectAck(Option option, String what) throws IOException {
    OptionReply reply = nextUnlessRefused(option, what);
    if (reply.type() != OptionReplyType.ACK) {
      throw unexpected(option, reply);
    }
    checkAck(option, reply);
  }

  /** An ACK has no data. */
  void checkAck(Option option, OptionReply ack) throws ProtocolException {
    if (ack.data().hasRemaining()) {
      throw new ProtocolException("the server's ACK of %s has data".formatted(option));
    }
  }

  static ProtocolException unexpected(Option option, OptionReply reply) {
    return new ProtocolException("the server answered %s by %s".formatted(option, reply.type()));
  }

  /** What an error reply says. */
  static OptionException refusal(OptionReply reply, String what) {
    String text = text(reply.data());
    StringBuilder message = new StringBuilder(what).append(" refused: ").append(reply.type());
    if (!text.isEmpty()) {
      message.append(": ").append(text);
    }
    switch (reply.type()) {
      case ERR_TLS_REQD -> message.append(" (use nbds:// or nbds+unix://)");
      case ERR_SHUTDOWN -> message.append(" (the server is shutting down)");
      default -> {}
    }
    return new OptionException(reply.type(), message.toString());
  }

  /** A text for people, of which nobody has promised that it is one line of UTF-8. */
  static String text(ByteBuffer data) {
    return StandardCharsets.UTF_8.decode(data).toString().replaceAll("\\p{Cntrl}+", " ").strip();
  }
}
