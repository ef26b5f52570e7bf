package nbd.check;

import java.io.IOException;
import java.util.Arrays;
import nbd.testing.Bytes;
import nbd.testing.RawClient;
import nbd.testing.ScriptedServer;
import nbd.testing.ScriptedServer.Asked;
import nbd.testing.ScriptedServer.Peer;
import nbd.testing.ScriptedServer.Replies;
import nbd.testing.ScriptedServer.Sent;

/**
 * A small NBD server with structured replies that keeps the protocol. A test overrides what is to
 * be wrong.
 */
class WireServer implements ScriptedServer.Script {
  static final int SIZE = 1 << 20;

  /** HAS_FLAGS, flush, FUA, trim, zero, DF and multi-conn. */
  static final int FLAGS = 0b1_1110_1101;

  private static final int NO_ERROR = 0;
  private static final int INVALID = 22;
  private static final int FULL = 28;
  private final byte[] disk = new byte[SIZE];

  @Override
  public void play(Peer client) throws IOException {
    client.greet(3);
    while (isOption(client, client.option())) {
      // Until the transmission phase.
    }
    while (true) {
      Asked asked = client.request();
      if (asked.type() == RawClient.DISC) {
        return;
      }
      answer(client, asked);
    }
  }

  /** Answers an option; false at the end of the options. */
  private boolean isOption(Peer client, Sent sent) throws IOException {
    int option = sent.option();
    switch (option) {
      case ScriptedServer.STRUCTURED_REPLY -> {
        client.agreed(Replies.STRUCTURED);
        client.reply(option, ScriptedServer.ACK);
      }
      case ScriptedServer.SET_META_CONTEXT ->
          client
              .reply(
                  option,
                  ScriptedServer.META_CONTEXT,
                  ScriptedServer.context(ScriptedServer.CONTEXT, "base:allocation"))
              .reply(option, ScriptedServer.ACK);
      case ScriptedServer.LIST -> {
        list(client);
        client.reply(option, ScriptedServer.ACK);
      }
      case RawClient.OPT_INFO, ScriptedServer.GO -> {
        info(client, option);
        client.reply(option, ScriptedServer.ACK);
      }
      case ScriptedServer.ABORT -> throw new IOException("the client leaves");
      default -> client.refuse(option, ScriptedServer.ERR_UNSUP, "not here");
    }
    return option != ScriptedServer.GO;
  }

  void list(Peer client) throws IOException {
    client.reply(ScriptedServer.LIST, ScriptedServer.SERVER, ScriptedServer.listed("", "a disk"));
  }

  void info(Peer client, int option) throws IOException {
    info(client, option, SIZE, "a disk");
  }

  static void info(Peer client, int option, long size, String description) throws IOException {
    client.reply(option, ScriptedServer.INFO, ScriptedServer.export(size, FLAGS));
    client.reply(option, ScriptedServer.INFO, Bytes.of().u16(2).text(description).toArray());
  }

  /** Answers a request. */
  void answer(Peer client, Asked asked) throws IOException {
    int error = error(asked);
    if (error != NO_ERROR) {
      fail(client, asked, error);
      return;
    }
    int offset = (int) asked.offset();
    int end = offset + (int) asked.length();
    switch (asked.type()) {
      case RawClient.READ -> data(client, asked, Arrays.copyOfRange(disk, offset, end));
      case RawClient.WRITE -> {
        asked.payload().get(disk, offset, end - offset);
        client.done(asked);
      }
      case RawClient.TRIM, RawClient.WRITE_ZEROES -> {
        Arrays.fill(disk, offset, end, (byte) 0);
        client.done(asked);
      }
      case RawClient.BLOCK_STATUS -> status(client, asked);
      default -> client.done(asked);
    }
  }

  /** Returns the number of the error with which a request is refused; 0 if it is not. */
  int error(Asked asked) {
    boolean beyond =
        asked.offset() < 0 || asked.offset() > SIZE || asked.length() > SIZE - asked.offset();
    boolean known = asked.type() <= RawClient.BLOCK_STATUS && asked.type() != RawClient.CACHE;
    boolean flags = asked.flags() <= RawClient.DF + RawClient.NO_HOLE + RawClient.REQ_ONE + 1;
    if (!known || !flags) {
      return INVALID;
    }
    return !beyond ? NO_ERROR : asked.type() == RawClient.WRITE ? FULL : INVALID;
  }

  static void fail(Peer client, Asked asked, int error) throws IOException {
    byte[] text = "no".getBytes(java.nio.charset.StandardCharsets.UTF_8);
    client.chunk(asked, true, 0x8001, Bytes.of().u32(error).u16(2).raw(text).toArray());
  }

  void data(Peer client, Asked asked, byte[] data) throws IOException {
    client.data(asked, data);
  }

  void status(Peer client, Asked asked) throws IOException {
    status(client, asked, asked.length());
  }

  /** Answers a BLOCK_STATUS by extents of data and of zeroes in turn, of these lengths. */
  static void status(Peer client, Asked asked, long... lengths) throws IOException {
    Bytes extents = Bytes.of().u32(ScriptedServer.CONTEXT);
    for (int i = 0; i < lengths.length; i++) {
      extents.u32(lengths[i]).u32(i % 2 == 0 ? 0 : 1);
    }
    client.chunk(asked, true, 5, extents.toArray());
  }

  /** Returns a part of data as a chunk's payload. */
  static byte[] piece(Asked asked, byte[] data, int from, int to) {
    return Bytes.of().u64(asked.offset() + from).raw(Arrays.copyOfRange(data, from, to)).toArray();
  }
}
