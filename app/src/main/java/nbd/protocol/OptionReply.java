package nbd.protocol;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Optional;
import java.util.Set;

/**
 * A reply to an option: magic, the option's number, the reply's type, the length of the data, and
 * the data.
 *
 * @param data big-endian, from position to limit
 */
public record OptionReply(OptionReplyType type, ByteBuffer data) {
  private static final int HEADER_BYTES = 20;

  /**
   * Waits for a reply to an option.
   *
   * @param mostData limit on the length of its data, in bytes
   * @throws ProtocolException if it is none to this option
   */
  public static OptionReply read(WireInput in, Option option, int mostData) throws IOException {
    in.require(HEADER_BYTES);
    ByteBuffer header = in.buffer();
    long magic = header.getLong();
    int number = header.getInt();
    int type = header.getInt();
    long length = Integer.toUnsignedLong(header.getInt());
    if (magic != Magic.OPTION_REPLY) {
      throw new ProtocolException(
          "the reply to an option does not start with the magic number but with 0x%016x"
              .formatted(magic));
    }
    if (number != option.code()) {
      throw new ProtocolException(
          "the server answered option %d where %s was sent".formatted(number, option));
    }
    if (length > mostData) {
      throw new ProtocolException(
          "the server's answer to %s has %d bytes".formatted(option, length));
    }
    ByteBuffer data = ByteBuffer.allocate((int) length);
    in.readFully(data);
    Optional<OptionReplyType> known = OptionReplyType.of(type);
    if (known.isEmpty() && type >= 0) {
      throw new ProtocolException(
          "the server answered %s by a reply of the unknown type %d".formatted(option, type));
    }
    // An unknown error is an error all the same.
    return new OptionReply(known.orElse(OptionReplyType.ERR_INVALID), data.flip());
  }

  /** Makes a reply without data. */
  public static OptionReply of(OptionReplyType type) {
    return new OptionReply(type, ByteBuffer.allocate(0));
  }

  /** Makes an error with a sentence for people, on one line. */
  public static OptionReply error(OptionReplyType type, String message) {
    return new OptionReply(
        type, ByteBuffer.wrap(Printable.sentence(message).getBytes(StandardCharsets.UTF_8)));
  }

  /** Makes the reply that lists an export. */
  public static OptionReply server(String name, String description) {
    byte[] nameBytes = name.getBytes(StandardCharsets.UTF_8);
    byte[] rest = description.getBytes(StandardCharsets.UTF_8);
    ByteBuffer data = ByteBuffer.allocate(4 + nameBytes.length + rest.length);
    return new OptionReply(
        OptionReplyType.SERVER, data.putInt(nameBytes.length).put(nameBytes).put(rest).flip());
  }

  /**
   * Makes the reply that names a metadata context.
   *
   * @param id its number in replies to BLOCK_STATUS; 0 if it is only listed
   */
  public static OptionReply metaContext(int id, String name) {
    byte[] bytes = name.getBytes(StandardCharsets.UTF_8);
    ByteBuffer data = ByteBuffer.allocate(4 + bytes.length).putInt(id).put(bytes);
    return new OptionReply(OptionReplyType.META_CONTEXT, data.flip());
  }

  /** Makes the reply with an export's size and flags. */
  public static OptionReply export(long size, Set<TransmissionFlag> flags) {
    ByteBuffer data = info(InfoType.EXPORT, 10);
    return infoReply(data.putLong(size).putShort(TransmissionFlag.toWire(flags)));
  }

  /** Makes the reply with an export's name or description. */
  public static OptionReply text(InfoType type, String text) {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    return infoReply(info(type, bytes.length).put(bytes));
  }

  /** Makes the reply with an export's block sizes. */
  public static OptionReply blockSizes(BlockSizes sizes) {
    ByteBuffer data = info(InfoType.BLOCK_SIZE, 12);
    data.putInt(sizes.minimum()).putInt(sizes.preferred()).putInt(sizes.maximumPayload());
    return infoReply(data);
  }

  private static ByteBuffer info(InfoType type, int length) {
    return ByteBuffer.allocate(2 + length).putShort((short) type.code());
  }

  private static OptionReply infoReply(ByteBuffer data) {
    return new OptionReply(OptionReplyType.INFO, data.flip());
  }

  /** Encodes the reply to an option of this number. */
  public ByteBuffer toWire(int option) {
    return ByteBuffer.allocate(HEADER_BYTES + data.remaining())
        .putLong(Magic.OPTION_REPLY)
        .putInt(option)
        .putInt(type.code())
        .putInt(data.remaining())
        .put(data.duplicate())
        .flip();
  }
}
