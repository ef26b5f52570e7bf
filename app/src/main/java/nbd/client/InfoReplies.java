package nbd.client;

import java.nio.ByteBuffer;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import nbd.protocol.InfoType;
import nbd.protocol.ProtocolException;
import nbd.protocol.TransmissionFlag;

/** The information on an export that the server has sent so far. */
final class InfoReplies {
  private long size = -1;
  private Set<TransmissionFlag> flags = Set.of();
  private Optional<String> canonicalName = Optional.empty();
  private String description = "";
  private Optional<ServerBlockSizes> blockSizes = Optional.empty();

  /** Takes the data of an INFO reply; unknown types are ignored. */
  void take(ByteBuffer data) throws ProtocolException {
    if (data.remaining() < 2) {
      throw new ProtocolException("a piece of information is too short");
    }
    Optional<InfoType> type = InfoType.of(Short.toUnsignedInt(data.getShort()));
    if (type.isPresent()) {
      take(type.get(), data);
    }
  }

  private void take(InfoType type, ByteBuffer data) throws ProtocolException {
    switch (type) {
      case EXPORT -> {
        requireLength(type, data, 10);
        if (size >= 0) {
          throw new ProtocolException("the server sent the export's size twice");
        }
        takeExport(data);
      }
      case NAME -> canonicalName = Optional.of(OptionExchange.text(data));
      case DESCRIPTION -> description = OptionExchange.text(data);
      case BLOCK_SIZE -> {
        requireLength(type, data, 12);
        blockSizes = Optional.of(ServerBlockSizes.read(data));
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
    Set<TransmissionFlag> sent = TransmissionFlag.fromWire(bits);
    flags = sent.contains(TransmissionFlag.HAS_FLAGS) ? sent : Set.of();
  }

  /** Makes the description of the export, once the server has sent everything. */
  ExportInfo export(
      String name,
      boolean fixedNewstyle,
      boolean structured,
      boolean extended,
      Map<String, Integer> contexts)
      throws ProtocolException {
    if (size < 0) {
      throw new ProtocolException("the server did not send the export's size");
    }
    return new ExportInfo(
        name,
        canonicalName,
        description,
        size,
        flags,
        blockSizes,
        fixedNewstyle,
        structured,
        extended,
        contexts);
  }
}
