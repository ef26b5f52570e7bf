package nbd.server;

import java.io.DataInput;
import java.io.DataOutput;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.EnumSet;
import java.util.LinkedHashSet;
import java.util.Set;
import nbd.protocol.BlockSizes;
import nbd.protocol.Printable;
import nbd.protocol.ReplyFormat;
import nbd.protocol.TransmissionFlag;
import nbd.transmission.OpenExport;

/**
 * All that server and client of one connection have agreed on, so that another process can go on
 * with it.
 *
 * @param export the name that the client asked for
 * @param format the form of replies
 * @param contexts the names of the metadata contexts that the client has selected
 * @param size of the export, in bytes
 * @param flags the transmission flags that the client was shown
 * @param blocks the block sizes that hold for the client
 * @param ahead the bytes of its next requests that have been read
 */
public record ClientState(
    String export,
    ReplyFormat format,
    Set<String> contexts,
    long size,
    Set<TransmissionFlag> flags,
    BlockSizes blocks,
    ByteBuffer ahead) {

  /** Describes the client of an export. */
  static ClientState of(OpenExport export, ByteBuffer ahead) {
    return new ClientState(
        export.name(),
        export.format(),
        export.contextNames(),
        export.handle().size(),
        export.flags(),
        export.handle().blockSizes(),
        ahead.asReadOnlyBuffer());
  }

  /**
   * Makes an export that was just opened the one that the client has.
   *
   * @throws IOException if the client would find less than it was shown
   */
  OpenExport agreedWith(OpenExport opened) throws IOException {
    OpenExport agreed = opened.agreed(format, contexts);
    long newSize = agreed.handle().size();
    requireSame(newSize == size, "has %d bytes, and had %d".formatted(newSize, size));
    Set<TransmissionFlag> missing = EnumSet.noneOf(TransmissionFlag.class);
    missing.addAll(flags);
    missing.removeAll(agreed.flags());
    requireSame(missing.isEmpty(), "does not show " + missing + " any more");
    requireSame(
        agreed.contextNames().containsAll(contexts),
        "has other metadata contexts than " + contexts);
    BlockSizes now = agreed.handle().blockSizes();
    requireSame(
        now.minimum() <= blocks.minimum() && now.maximumPayload() >= blocks.maximumPayload(),
        "has other block sizes: " + now + ", and had " + blocks);
    return agreed;
  }

  private void requireSame(boolean same, String difference) throws IOException {
    if (!same) {
      throw new IOException("export \"%s\" %s".formatted(Printable.name(export), difference));
    }
  }

  /** Writes it, for {@link #read}. */
  public void write(DataOutput to) throws IOException {
    to.writeUTF(export);
    to.writeUTF(format.name());
    to.writeInt(contexts.size());
    for (String context : contexts) {
      to.writeUTF(context);
    }
    to.writeLong(size);
    to.writeShort(TransmissionFlag.toWire(flags));
    to.writeInt(blocks.minimum());
    to.writeInt(blocks.preferred());
    to.writeInt(blocks.maximumPayload());
    byte[] bytes = new byte[ahead.remaining()];
    ahead.duplicate().get(bytes);
    to.writeInt(bytes.length);
    to.write(bytes);
  }

  /**
   * Reads what {@link #write} has written.
   *
   * @throws IOException if it is something else
   */
  public static ClientState read(DataInput from) throws IOException {
    try {
      String export = from.readUTF();
      ReplyFormat format = ReplyFormat.valueOf(from.readUTF());
      Set<String> contexts = new LinkedHashSet<>();
      for (int left = from.readInt(); left > 0; left--) {
        contexts.add(from.readUTF());
      }
      long size = from.readLong();
      Set<TransmissionFlag> flags = TransmissionFlag.fromWire(from.readShort());
      BlockSizes blocks = new BlockSizes(from.readInt(), from.readInt(), from.readInt());
      byte[] ahead = new byte[checked(from.readInt())];
      from.readFully(ahead);
      return new ClientState(export, format, contexts, size, flags, blocks, ByteBuffer.wrap(ahead));
    } catch (IllegalArgumentException unknown) {
      throw new IOException("a client's state is not understood: " + unknown.getMessage(), unknown);
    }
  }

  private static int checked(int length) {
    if (length < 0 || length > Server.READ_AHEAD) {
      throw new IllegalArgumentException(length + " bytes read ahead");
    }
    return length;
  }
}
