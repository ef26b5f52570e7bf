package nbd.protocol;

import java.util.Optional;

/** The kinds of chunks in structured replies ({@code NBD_REPLY_TYPE_*}). */
public enum ChunkType {
  /** No content: the end of a reply. */
  NONE(0),
  /** Bytes that were read: an offset of 64 bits, then at least one byte. */
  OFFSET_DATA(1),
  /** Zeroes that were read: an offset of 64 bits, a length of 32 bits. */
  OFFSET_HOLE(2),
  /** Extents: a context of 32 bits, then for each a length and flags of 32 bits. */
  BLOCK_STATUS(5),
  /** Extents: a context and a count of 32 bits, then for each a length and flags of 64 bits. */
  BLOCK_STATUS_EXT(6),
  /** An error of 32 bits, and a message after its length of 16 bits. */
  ERROR(0x8001),
  /** The same and an offset of 64 bits. */
  ERROR_OFFSET(0x8002);

  /** The chunk flag that ends a reply. */
  public static final int DONE = 1;

  private static final ChunkType[] VALUES = values();

  private final int code;

  ChunkType(int code) {
    this.code = code;
  }

  public int code() {
    return code;
  }

  /** Says whether a chunk of this number, known or not, says that the command failed. */
  public static boolean isError(int code) {
    return (code & 0x8000) != 0;
  }

  /** Finds the type of a number (unsigned 16 bits); empty if the protocol does not define it. */
  public static Optional<ChunkType> of(int code) {
    for (ChunkType type : VALUES) {
      if (type.code == code) {
        return Optional.of(type);
      }
    }
    return Optional.empty();
  }
}
