package nbd.takeover;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import nbd.posix.Descriptor;
import nbd.posix.FilePassing;
import nbd.posix.FilePassing.Message;
import nbd.server.ClientState;
import nbd.server.Server;

/**
 * The messages of a take-over, behind the request line {@code take-over VERSION} on the control
 * socket:
 *
 * <pre>
 * old: HELLO, a LISTENER, IMAGE or CLIENT with each descriptor, END     (it serves nobody now)
 * new: READY, or REFUSED and why                                        (old goes on)
 * old: GO, when it has closed the storage (new serves), or REFUSED      (old goes on)
 * </pre>
 *
 * <p>Whoever sees the end of the stream before READY goes on, or gives up, as if there had been no
 * take-over. A new server that has sent READY serves at the end of the stream, too: the old one
 * sends REFUSED before the end if it goes on. So one of them serves, and never both.
 *
 * <p>A {@link StoredServer} is the messages HELLO to END.
 *
 * <p>Used by one thread, which is a platform thread.
 */
final class Exchange implements AutoCloseable {
  /** The version of the messages. */
  static final int VERSION = 1;

  private final FilePassing way;

  /** The kinds of messages, by their letters on the wire. */
  private enum Kind {
    HELLO('H'),
    LISTENER('L'),
    IMAGE('I'),
    CLIENT('C'),
    END('E'),
    READY('R'),
    REFUSED('X'),
    GO('G');

    private final char letter;

    Kind(char letter) {
      this.letter = letter;
    }
  }

  /** Writes the fields of a message. */
  @FunctionalInterface
  private interface Fields {
    void write(DataOutputStream to) throws IOException;
  }

  /** Sends and receives on a way that is closed with it. */
  Exchange(FilePassing way) {
    this.way = way;
  }

  /** Sends all that is handed over; the descriptors stay the caller's. */
  void send(Handover all, Duration patience) throws IOException {
    send(Kind.HELLO, to -> to.writeUTF(all.program()), List.of(), patience);
    for (Handover.Listener each : all.listeners()) {
      send(Kind.LISTENER, each::write, List.of(each.socket()), patience);
    }
    for (Descriptor each : all.images()) {
      send(Kind.IMAGE, _ -> {}, List.of(each), patience);
    }
    for (Server.Client each : all.clients()) {
      send(Kind.CLIENT, each.state()::write, List.of(each.socket()), patience);
    }
    send(Kind.END, _ -> {}, List.of(), patience);
  }

  /**
   * Receives all that is handed over.
   *
   * @throws RefusedException if the other server refuses
   */
  Handover receive(Duration patience) throws IOException {
    String program = "";
    Handover all = new Handover("", new ArrayList<>(), new ArrayList<>(), new ArrayList<>());
    boolean whole = false;
    try {
      while (!whole) {
        Message message = way.receive(patience);
        try {
          DataInputStream in = fields(message.data());
          Kind kind = kind(in);
          switch (kind) {
            case HELLO -> program = in.readUTF();
            case LISTENER -> all.listeners().add(Handover.Listener.read(in, only(message)));
            case IMAGE -> all.images().add(only(message));
            case CLIENT ->
                all.clients().add(new Server.Client(ClientState.read(in), only(message)));
            case REFUSED -> throw new RefusedException(in.readUTF());
            case END -> whole = true;
            case READY, GO -> throw unexpected(kind);
          }
        } catch (IOException | RuntimeException failure) {
          message.closeFiles();
          throw failure;
        }
      }
      return new Handover(program, all.listeners(), all.images(), all.clients());
    } finally {
      if (!whole) {
        all.close();
      }
    }
  }

  private static Descriptor only(Message message) throws IOException {
    if (message.files().size() != 1) {
      throw new IOException("a message came with " + message.files().size() + " descriptors");
    }
    return message.files().getFirst();
  }

  void sendReady(Duration patience) throws IOException {
    send(Kind.READY, _ -> {}, List.of(), patience);
  }

  void sendGo(Duration patience) throws IOException {
    send(Kind.GO, _ -> {}, List.of(), patience);
  }

  void sendRefused(String why, Duration patience) throws IOException {
    send(Kind.REFUSED, to -> to.writeUTF(why), List.of(), patience);
  }

  /**
   * Waits until the new server is ready.
   *
   * @throws RefusedException if it is not
   */
  void awaitReady(Duration patience) throws IOException {
    await(Kind.READY, patience);
  }

  /** Waits until the old server has closed its storage. */
  void awaitGo(Duration patience) throws IOException {
    await(Kind.GO, patience);
  }

  private void await(Kind wanted, Duration patience) throws IOException {
    Message message = way.receive(patience);
    message.closeFiles();
    DataInputStream in = fields(message.data());
    Kind kind = kind(in);
    if (kind == Kind.REFUSED) {
      throw new RefusedException(in.readUTF());
    }
    if (kind != wanted) {
      throw unexpected(kind);
    }
  }

  private void send(Kind kind, Fields fields, List<Descriptor> files, Duration patience)
      throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    DataOutputStream to = new DataOutputStream(bytes);
    to.writeByte(kind.letter);
    fields.write(to);
    way.send(ByteBuffer.wrap(bytes.toByteArray()), files, patience);
  }

  private static DataInputStream fields(ByteBuffer data) {
    byte[] bytes = new byte[data.remaining()];
    data.get(bytes);
    return new DataInputStream(new ByteArrayInputStream(bytes));
  }

  private static Kind kind(DataInputStream in) throws IOException {
    int letter = in.readUnsignedByte();
    for (Kind kind : Kind.values()) {
      if (kind.letter == letter) {
        return kind;
      }
    }
    throw new IOException("an unknown message, " + letter);
  }

  private static IOException unexpected(Kind kind) {
    return new IOException("an unexpected message, " + kind);
  }

  @Override
  public void close() {
    way.close();
  }
}
