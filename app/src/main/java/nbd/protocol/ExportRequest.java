package nbd.protocol;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.EnumSet;
import java.util.Set;

/**
 * The data of INFO and GO: the name of an export, and the information that the client asks for.
 *
 * @param infos the types that the protocol defines; others are ignored
 */
public record ExportRequest(String name, Set<InfoType> infos) {
  /** The longest name, in bytes, that the protocol allows. */
  public static final int MAXIMUM_NAME_BYTES = 4096;

  /** The longest data: the longest name, and as many information requests as can be counted. */
  public static final int MAXIMUM_BYTES = 4 + MAXIMUM_NAME_BYTES + 2 + 2 * 0xffff;

  /** Reads the whole data of an option. */
  public static ExportRequest parse(ByteBuffer data) throws MalformedException {
    String name = name(string(data, MAXIMUM_NAME_BYTES, "name"));
    if (data.remaining() < 2) {
      throw new MalformedException("the data is too short");
    }
    int count = Short.toUnsignedInt(data.getShort());
    if (data.remaining() != 2 * count) {
      throw new MalformedException(
          "%d information requests in %d bytes".formatted(count, data.remaining()));
    }
    Set<InfoType> infos = EnumSet.noneOf(InfoType.class);
    for (int i = 0; i < count; i++) {
      InfoType.of(Short.toUnsignedInt(data.getShort())).ifPresent(infos::add);
    }
    return new ExportRequest(name, infos);
  }

  /** Takes the next string of an option's data, which begins with its length. */
  static ByteBuffer string(ByteBuffer data, int most, String what) throws MalformedException {
    if (data.remaining() < 4) {
      throw new MalformedException("the data is too short");
    }
    long length = Integer.toUnsignedLong(data.getInt());
    if (length > data.remaining()) {
      throw new MalformedException("the " + what + " is longer than the data");
    }
    if (length > most) {
      throw new MalformedException(
          "the %s has %d bytes, at most %d are allowed".formatted(what, length, most));
    }
    ByteBuffer string = data.slice(data.position(), (int) length);
    data.position(data.position() + (int) length);
    return string;
  }

  /**
   * Reads an export's name, which is all of the data.
   *
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

  /** Thrown if the data of an option is malformed. */
  public static final class MalformedException extends Exception {
    private static final long serialVersionUID = 1;

    MalformedException(String message) {
      super(message);
    }

    public String reason() {
      return String.valueOf(getMessage());
    }
  }
}
