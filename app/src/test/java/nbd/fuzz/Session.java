package nbd.fuzz;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import nbd.server.FuzzedServer;
import nbd.testing.Bytes;
import nbd.testing.Log;
import nbd.testing.RawClient;
import org.tinylog.Level;

/**
 * The messages of a client, built from the fuzzer's decisions. They are well-framed, so that they
 * get deep into the server, unless a decision damages them.
 *
 * <p>A message's first decision is a byte: its kind in the lower bits, and in the highest, whether
 * the client sends it without waiting for the answers to those before it.
 */
final class Session {
  /** The kind of a message that opens an export. */
  static final int GO = 6;

  /** The context of the bitmap of the export with the empty name. */
  private static final String BITMAP = "qemu:dirty-bitmap:of-";

  private static final int AT_ONCE = 0x80;
  private static final int DAMAGED = 0x40;
  private static final int MOST_MESSAGES = 60;
  private static final int MOST_BYTES = 3 << 20;

  private final Setup setup;
  private final List<byte[]> pieces = new ArrayList<>();
  private final ByteArrayOutputStream piece = new ByteArrayOutputStream();
  private boolean extended;
  private int messages;
  private int bytes;
  private long cookie = 0x1000_0000_0000_0000L;

  Session(Setup setup) {
    this.setup = setup;
  }

  /** Adds bytes. */
  Session raw(byte... more) {
    piece.writeBytes(more);
    bytes += more.length;
    return this;
  }

  /** Lets the client wait for the answers to everything before. */
  Session pause() {
    if (piece.size() > 0) {
      pieces.add(piece.toByteArray());
      piece.reset();
    }
    return this;
  }

  /** Plays the session, and judges the answers. */
  void run() throws IOException, InterruptedException {
    pause();
    StrictClient client = new StrictClient(setup, pieces);
    byte[] content;
    try {
      content = FuzzedServer.serve(setup, client);
    } catch (AssertionError effect) {
      client.complain();
      throw effect;
    }
    try {
      client.verdict(content);
    } catch (AssertionError wrong) {
      throw new AssertionError(wrong.getMessage() + "; the log: " + Log.at(Level.INFO), wrong);
    }
  }

  private boolean hasRoom(Choices choices) {
    return choices.hasMore() && messages++ < MOST_MESSAGES && bytes < MOST_BYTES;
  }

  /** Adds the client's flags. */
  Session introduce(int flags) {
    return raw(Bytes.of().u32(flags).toArray());
  }

  /** Adds the options that enter the transmission phase. */
  Session enter(boolean structured, boolean extendedHeaders, boolean allocation) {
    introduce(3);
    if (structured) {
      raw(RawClient.optionBytes(8));
    }
    if (extendedHeaders) {
      raw(RawClient.optionBytes(11));
      extended = true;
    }
    if (allocation) {
      raw(RawClient.optionBytes(10, queries("", "base:allocation", BITMAP)));
    }
    return raw(RawClient.optionBytes(7, RawClient.infoData("", 1, 2, 3))).pause();
  }

  private static byte[] queries(String name, String... queries) {
    Bytes data = Bytes.of().u32(name.length()).text(name).u32(queries.length);
    for (String query : queries) {
      data.u32(query.length()).text(query);
    }
    return data.toArray();
  }

  /** Adds options, and requests after the first GO that should succeed. */
  Session options(Choices choices) {
    while (hasRoom(choices)) {
      int what = choices.u8();
      if ((what & AT_ONCE) == 0) {
        pause();
      }
      if (option(choices, what & 15, (what & DAMAGED) != 0)) {
        pause();
        return requests(choices);
      }
    }
    return this;
  }

  /** Adds an option; true if the transmission phase should begin. */
  private boolean option(Choices choices, int kind, boolean damaged) {
    int number = kind < 11 ? kind + 1 : kind < 14 ? kind - 6 : (int) choices.u32();
    boolean valid = true;
    byte[] data;
    switch (number) {
      case 1 -> {
        byte[] name = name(choices);
        valid = isServed(name);
        data = name;
      }
      case 6, 7 -> {
        byte[] name = name(choices);
        valid = isServed(name);
        data = info(name, choices, damaged);
      }
      case 9, 10 -> data = contexts(choices, damaged);
      default -> data = damaged ? choices.bytes(choices.u8()) : new byte[0];
    }
    long length = data.length;
    if (damaged) {
      length = choices.u8() < 128 ? length : choices.u32();
    }
    extended |= number == 11 && length == 0;
    raw(RawClient.optionHeader(number, length)).raw(data);
    return (number == 1 || number == 7) && valid && !damaged;
  }

  private static boolean isServed(byte[] name) {
    return Setup.NAMES.contains(new String(name, ISO_8859_1));
  }

  private static byte[] name(Choices choices) {
    return switch (choices.u8() % 10) {
      case 0, 1 -> new byte[0];
      case 2 -> "disk".getBytes(UTF_8);
      case 3 -> "nope".getBytes(UTF_8);
      case 4 -> choices.bytes(choices.u8());
      case 5 -> "../../etc/passwd".getBytes(UTF_8);
      case 6 -> "di\0sk".getBytes(UTF_8);
      case 7 -> new byte[] {'d', (byte) 0xc3, 0x28};
      case 8 -> "a".repeat(255 + choices.u8() % 3).getBytes(UTF_8);
      default -> "a".repeat(4095 + choices.u8() % 3).getBytes(UTF_8);
    };
  }

  private static byte[] info(byte[] name, Choices choices, boolean damaged) {
    int count = choices.u8() % 8;
    long nameLength = damaged && choices.u8() > 128 ? choices.u32() : name.length;
    int told = damaged && choices.u8() > 128 ? choices.u16() : count;
    Bytes data = Bytes.of().u32(nameLength).raw(name).u16(told);
    for (int i = 0; i < count; i++) {
      int type = choices.u8();
      data.u16(type < 250 ? type % 5 : choices.u16());
    }
    return data.toArray();
  }

  /** Makes the data of a query for contexts. */
  static byte[] contexts(Choices choices, boolean damaged) {
    byte[] name = name(choices);
    int count = choices.u8() % 12;
    long nameLength = damaged && choices.u8() > 128 ? choices.u32() : name.length;
    long told = damaged && choices.u8() > 128 ? choices.u32() : count;
    Bytes data = Bytes.of().u32(nameLength).raw(name).u32(told);
    for (int i = 0; i < count; i++) {
      byte[] query =
          switch (choices.u8() % 12) {
            case 0 -> "base:allocation".getBytes(UTF_8);
            case 1 -> "base:".getBytes(UTF_8);
            case 2 -> "base:allocation2".getBytes(UTF_8);
            case 3 -> "qemu:dirty-bitmap:".getBytes(UTF_8);
            case 4 -> new byte[0];
            case 5 -> choices.bytes(choices.u8());
            case 6 -> "no colon".getBytes(UTF_8);
            case 7 -> new byte[] {'b', (byte) 0xff, (byte) 0xfe};
            case 9 -> "qemu:".getBytes(UTF_8);
            case 10 -> BITMAP.getBytes(UTF_8);
            case 11 -> (BITMAP + "disk").getBytes(UTF_8);
            default -> "x".repeat(4095 + choices.u8() % 3).getBytes(UTF_8);
          };
      long length = damaged && choices.u8() > 240 ? choices.u32() : query.length;
      data.u32(length).raw(query);
    }
    return data.toArray();
  }

  /** Adds requests. */
  Session requests(Choices choices) {
    while (hasRoom(choices)) {
      int what = choices.u8();
      if ((what & AT_ONCE) == 0) {
        pause();
      }
      switch (what & 31) {
        case 8 -> request(choices, choices.u16());
        case 9 -> raw(choices.bytes(choices.u8()));
        case 10 -> raw(RawClient.optionBytes(choices.u8() % 12));
        case 11 -> {
          byte[] part = Bytes.of().u64(length(choices, setup.size())).u32(1).toArray();
          statusPayload(choices, part);
        }
        case 12 -> statusPayload(choices, choices.bytes(choices.u8() % 40));
        case 14 -> {
          Bytes part = Bytes.of().u64(length(choices, setup.size()));
          for (int count = choices.u8() % 4; count > 0; count--) {
            part.u32(choices.u8() % 4);
          }
          statusPayload(choices, part.toArray());
        }
        case 13 -> raw(requestHeader(0, 2, cookie++, 0, 0));
        default -> request(choices, new int[] {0, 1, 0, 3, 4, 5, 6, 7}[what & 7]);
      }
    }
    return this;
  }

  private void statusPayload(Choices choices, byte... payload) {
    long offset = offset(choices);
    raw(requestHeader(0x20, 7, cookie++, offset, payload.length)).raw(payload);
  }

  private void request(Choices choices, int type) {
    int flags = choices.u8();
    // Most flags are wrong for most commands, so most numbers mean none.
    flags = flags < 0x40 ? flags : flags == 0xff ? choices.u16() : 0;
    long offset = offset(choices);
    long length = length(choices, setup.size() - offset);
    boolean loaded = extended ? (flags & 0x20) != 0 : type == 1;
    if (extended && type == 1) {
      flags ^= 0x20;
      loaded = (flags & 0x20) != 0;
    }
    raw(requestHeader(flags, type, cookie++, offset, length));
    if (loaded) {
      raw(payload(choices.u8(), Math.clamp(length, 0, (1 << 20) + (1 << 16))));
    }
  }

  private byte[] requestHeader(int flags, int type, long number, long offset, long length) {
    if (!extended) {
      return RawClient.requestBytes(flags, type, number, offset, length);
    }
    Bytes header = Bytes.of().u32(0x21e41c71).u16(flags).u16(type);
    return header.u64(number).u64(offset).u64(length).toArray();
  }

  private static byte[] payload(int first, int length) {
    byte[] payload = new byte[length];
    for (int i = 0; i < length; i++) {
      payload[i] = (byte) (first + i + (i >> 8));
    }
    return payload;
  }

  private long offset(Choices choices) {
    long size = setup.size();
    return switch (choices.u8() % 10) {
      case 0 -> 0;
      case 1 -> choices.u16();
      case 2 -> 512L * choices.u8();
      case 3 -> 4096L * choices.u8();
      case 4 -> size - choices.u8();
      case 5 -> size - 512L * choices.u8();
      case 6 -> size + choices.u8();
      case 7 -> choices.u64();
      case 8 -> 65_536L * (choices.u8() % 8);
      default -> size / 2;
    };
  }

  private static long length(Choices choices, long room) {
    return switch (choices.u8() % 12) {
      case 0 -> 512;
      case 1 -> choices.u8();
      case 2 -> choices.u16();
      case 3 -> 512L * choices.u8();
      case 4 -> room;
      case 5 -> room + 1;
      case 6 -> 4096L * choices.u8();
      case 7 -> Setup.MAXIMUM_PAYLOAD + choices.of(-512, -1, 0, 1, 512);
      case 8 -> choices.u32();
      case 9 -> choices.u64();
      case 10 -> 65_536L * (choices.u8() % 8) + choices.u8();
      default -> 0;
    };
  }
}
