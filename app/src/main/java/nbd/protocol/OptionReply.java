package nbd.protocol;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Set;

/**
 * A reply to an option.
 *
 * @param type what it says
 * @param data what follows the header: big-endian, from position to limit
 */
public record OptionReply(OptionReplyType type, ByteBuffer data) {
  /** A reply without data. */
  public static OptionReply of(OptionReplyType type) {
    return new OptionReply(type, ByteBuffer.allocate(0));
  }

  /** An error with a sentence for people, which is made one line. */
  public static OptionReply error(OptionReplyType type, String message) {
    return new OptionReply(
        type, ByteBuffer.wrap(Printable.sentence(message).getBytes(StandardCharsets.UTF_8)));
  }

  /** An export of a list. */
  public static OptionReply server(String name, String description) {
    byte[] nameBytes = name.getBytes(StandardCharsets.UTF_8);
    byte[] rest = description.getBytes(StandardCharsets.UTF_8);
    ByteBuffer data = ByteBuffer.allocate(4 + nameBytes.length + rest.length);
    return new OptionReply(
        OptionReplyType.SERVER, data.putInt(nameBytes.length).put(nameBytes).put(rest).flip());
  }

  /**
   * A metadata context.
   *
   * @param id by which BLOCK_STATUS refers to it; 0 where it is only listed
   */
  public static OptionReply metaContext(int id, String name) {
    byte[] bytes = name.getBytes(StandardCharsets.UTF_8);
    ByteBuffer data = ByteBuffer.allocate(4 + bytes.length).putInt(id).put(bytes);
    return new OptionReply(OptionReplyType.META_CONTEXT, data.flip());
  }

  /** Size and flags of an export. */
  public static OptionReply export(long size, Set<TransmissionFlag> flags) {
    ByteBuffer data = info(InfoType.EXPORT, 10);
    return infoReply(data.putLong(size).putShort(TransmissionFlag.toWire(flags)));
  }

  /** The name or the description of an export. */
  public static OptionReply text(InfoType type, String text) {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    return infoReply(info(type, bytes.length).put(bytes));
  }

  /** The block sizes of an export. */
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

  /** The bytes on the wire. */
  public ByteBuffer toWire(int option) {
    return ByteBuffer.allocate(20 + data.remaining())
        .putLong(Magic.OPTION_REPLY)
        .putInt(option)
        .putInt(type.code())
        .putInt(data.remaining())
        .put(data.duplicate())
        .flip();
  }
}
