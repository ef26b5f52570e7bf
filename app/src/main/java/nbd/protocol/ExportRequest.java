package nbd.protocol;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.EnumSet;
import java.util.Set;

/**
 * The data of INFO and GO: which export, and what the client wants to know of it.
 *
 * @param name the export's name
 * @param infos the kinds of information that the client asked for and the protocol defines
 */
public record ExportRequest(String name, Set<InfoType> infos) {
  /** The longest name, in bytes, that the protocol allows. */
  public static final int MAXIMUM_NAME_BYTES = 4096;

  /** The longest data: the longest name, and as many information requests as can be counted. */
  public static final int MAXIMUM_BYTES = 4 + MAXIMUM_NAME_BYTES + 2 + 2 * 0xffff;

  /**
   * Reads it.
   *
   * @param data all of the option's data, big-endian
   * @throws MalformedException if it is not well-formed
   */
  public static ExportRequest parse(ByteBuffer data) throws MalformedException {
    if (data.remaining() < 6) {
      throw new MalformedException("the data is too short");
    }
    long nameLength = Integer.toUnsignedLong(data.getInt());
    if (nameLength > data.remaining() - 2) {
      throw new MalformedException("the name is longer than the data");
    }
    String name = name(data.slice(data.position(), (int) nameLength));
    data.position(data.position() + (int) nameLength);
    int count = Short.toUnsignedInt(data.getShort());
    if (data.remaining() != 2 * count) {
      throw new MalformedException(
          "%d information requests in %d bytes".formatted(count, data.remaining()));
    }
    Set<InfoType> infos = EnumSet.noneOf(InfoType.class);
    for (int i = 0; i < count; i++) {
      int code = Short.toUnsignedInt(data.getShort());
      for (InfoType type : InfoType.values()) {
        if (type.code() == code) {
          infos.add(type);
        }
      }
    }
    return new ExportRequest(name, infos);
  }

  /**
   * Reads an export's name.
   *
   * @param data all of its bytes
   * @throws MalformedException if it is too long, has a NUL or is not UTF-8
   */
  public static String name(ByteBuffer data) throws MalformedException {
    if (data.remaining() > MAXIMUM_NAME_BYTES) {
      throw new MalformedException(
          "the name has %d bytes, at most %d are allowed"
              .formatted(data.remaining(), MAXIMUM_NAME_BYTES));
    }
    try {
      String name = StandardCharsets.UTF_8.newDecoder().decode(data).toString();
      if (name.indexOf('\0') >= 0) {
        throw new MalformedException("the name contains a NUL");
      }
      return name;
    } catch (CharacterCodingException notUtf8) {
      throw new MalformedException("the name is not UTF-8");
    }
  }

  /** An option's data is not as the protocol has it; the message says why. */
  public static final class MalformedException extends Exception {
    private static final long serialVersionUID = 1;

    MalformedException(String message) {
      super(message);
    }

    /** The message. */
    public String reason() {
      return String.valueOf(getMessage());
    }
  }
}
