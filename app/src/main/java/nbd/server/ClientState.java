package nbd.server;

import java.io.DataInput;
import java.io.DataOutput;
import java.io.IOException;
import java.util.LinkedHashSet;
import java.util.Set;
import nbd.protocol.BlockSizes;
import nbd.protocol.ReplyFormat;
import nbd.protocol.TransmissionFlag;

/**
 * All that server and client of one connection have agreed on, so that another process can go on
 * with it.
 *
 * @param peer for messages: " from 127.0.0.1:4711"; may be empty
 * @param export the name that the client asked for
 * @param format the form of replies
 * @param contexts the names of the metadata contexts that the client has selected
 * @param size of the export, in bytes
 * @param flags the transmission flags that the client was shown
 * @param blocks the block sizes that hold for the client
 * @param ahead the bytes of its next requests that have been read
 */
public record ClientState(
    String peer,
    String export,
    ReplyFormat format,
    Set<String> contexts,
    long size,
    Set<TransmissionFlag> flags,
    BlockSizes blocks,
    byte[] ahead) {

  /** Writes it, for {@link #read}. */
  public void write(DataOutput to) throws IOException {
    to.writeUTF(peer);
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
    to.writeInt(ahead.length);
    to.write(ahead);
  }

  /**
   * Reads what {@link #write} has written.
   *
   * @throws IOException if it is something else
   */
  public static ClientState read(DataInput from) throws IOException {
    try {
      String peer = from.readUTF();
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
      return new ClientState(peer, export, format, contexts, size, flags, blocks, ahead);
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
