package nbd.client;

import java.nio.ByteBuffer;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import nbd.protocol.BlockSizes;
import nbd.protocol.InfoType;
import nbd.protocol.ProtocolException;
import nbd.protocol.TransmissionFlag;
import org.jspecify.annotations.Nullable;

/** What a server has told of an export so far, piece by piece. */
final class ToldInfo {
  private static final int EXPORT_BYTES = 10;
  private static final int BLOCK_SIZE_BYTES = 12;

  private long size = -1;
  private Set<TransmissionFlag> flags = Set.of();
  private Optional<String> canonicalName = Optional.empty();
  private String description = "";
  private @Nullable ToldBlockSizes blockSizes;

  /** Takes the data of an INFO reply; a kind that is not known is left out. */
  void take(ByteBuffer data) throws ProtocolException {
    if (data.remaining() < 2) {
      throw new ProtocolException("a piece of information is too short");
    }
    int code = Short.toUnsignedInt(data.getShort());
    for (InfoType type : InfoType.values()) {
      if (type.code() == code) {
        take(type, data);
      }
    }
  }

  private void take(InfoType type, ByteBuffer data) throws ProtocolException {
    switch (type) {
      case EXPORT -> {
        requireLength(type, data, EXPORT_BYTES);
        if (size >= 0) {
          throw new ProtocolException("the server told the export's size twice");
        }
        takeExport(data);
      }
      case NAME -> canonicalName = Optional.of(OptionExchange.text(data));
      case DESCRIPTION -> description = OptionExchange.text(data);
      case BLOCK_SIZE -> {
        requireLength(type, data, BLOCK_SIZE_BYTES);
        blockSizes =
            ToldBlockSizes.checked(
                Integer.toUnsignedLong(data.getInt()),
                Integer.toUnsignedLong(data.getInt()),
                Integer.toUnsignedLong(data.getInt()));
      }
    }
  }

  private static void requireLength(InfoType type, ByteBuffer data, int bytes)
      throws ProtocolException {
    if (data.remaining() != bytes) {
      throw new ProtocolException(
          "information %s has %d bytes instead of %d".formatted(type, data.remaining(), bytes));
    }
  }

  /** Takes size and flags: ten bytes. */
  void takeExport(ByteBuffer data) throws ProtocolException {
    size = data.getLong();
    short bits = data.getShort();
    if (size < 0) {
      throw new ProtocolException(
          "the export's size %s is negative or huge".formatted(Long.toUnsignedString(size)));
    }
    Set<TransmissionFlag> told = TransmissionFlag.fromWire(bits);
    flags = told.contains(TransmissionFlag.HAS_FLAGS) ? told : Set.of();
  }

  /** All of it, when the server has said that this is all. */
  ExportInfo export(
      String name,
      boolean fixedNewstyle,
      boolean structured,
      boolean extended,
      Map<String, Integer> contexts)
      throws ProtocolException {
    if (size < 0) {
      throw new ProtocolException("the server did not tell the export's size");
    }
    Optional<ToldBlockSizes> told = Optional.ofNullable(blockSizes);
    return new ExportInfo(
        name,
        canonicalName,
        description,
        size,
        flags,
        told.map(ToldBlockSizes::forCallers).orElse(BlockSizes.DEFAULT),
        told,
        fixedNewstyle,
        structured,
        extended,
        contexts);
  }
}
