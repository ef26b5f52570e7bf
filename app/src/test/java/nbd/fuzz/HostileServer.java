package nbd.fuzz;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.ByteArrayOutputStream;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Optional;
import nbd.testing.Bytes;
import nbd.testing.MemorySocket;

/**
 * A server that agrees to everything in the handshake, and then answers each request as the fuzzer
 * decides: rightly, wrongly, or not. It remembers the answers that a client may believe.
 */
final class HostileServer implements MemorySocket.Peer {
  private static final int MOST_STEPS = 12;

  private final Choices choices;
  private final boolean structured;
  private final boolean extended;
  private final long size;
  private final int maximumPayload;
  private final Backlog received = new Backlog();
  private final ByteArrayOutputStream toSend = new ByteArrayOutputStream();
  private boolean introduced;
  private boolean transmission;
  private boolean ended;

  /** The content of the export according to its answers. */
  private final byte[] told;

  /** Set when it has broken the protocol. */
  private boolean wrong;

  private int error;

  HostileServer(Choices choices, boolean structured, boolean extended, int size, int most) {
    this.choices = choices;
    this.structured = structured;
    this.extended = extended;
    this.size = size;
    this.maximumPayload = most;
    this.told = new byte[size];
    toSend.writeBytes(Bytes.of().text("NBDMAGIC").text("IHAVEOPT").u16(3).toArray());
  }

  /** Says whether it has kept to the protocol so far. */
  boolean isHonest() {
    return !wrong && !ended;
  }

  /** Takes the first error since the last call; 0 for none. */
  int takeError() {
    int first = error;
    error = 0;
    return first;
  }

  /** Returns the content of a range according to its answers. */
  byte[] told(long offset, int length) {
    return Arrays.copyOfRange(told, (int) offset, (int) offset + length);
  }

  @Override
  public Optional<byte[]> send() {
    if (toSend.size() == 0) {
      // A wrong answer may have left the client waiting for more.
      return ended || wrong ? Optional.of(new byte[0]) : Optional.empty();
    }
    byte[] bytes = toSend.toByteArray();
    toSend.reset();
    return Optional.of(bytes);
  }

  @Override
  public void receive(byte[] bytes) {
    received.add(bytes);
    while (!ended && (transmission ? request() : option())) {
      // Requests are answered one after the other.
    }
  }

  private boolean option() {
    if (!introduced) {
      if (received.length() < 4) {
        return false;
      }
      StrictClient.check(received.i32(0) == 3, "the client's flags");
      received.drop(4);
      introduced = true;
    }
    if (received.length() < 16 || received.length() < 16 + received.u32(12)) {
      return false;
    }
    StrictClient.check(received.i64(0) == 0x49484156454f5054L, "an option's magic");
    int option = received.i32(8);
    int length = received.i32(12);
    received.drop(16 + length);
    switch (option) {
      case 8 -> reply(option, structured ? 1 : 0x80000001);
      case 11 -> reply(option, extended ? 1 : 0x80000001);
      case 10 -> {
        reply(option, 4, Bytes.of().u32(7).text("base:allocation").toArray());
        reply(option, 1);
      }
      case 7 -> {
        // All transmission flags but SEND_RESIZE.
        reply(option, 3, Bytes.of().u16(0).u64(size).u16(0xdfd).toArray());
        byte[] sizes = Bytes.of().u16(3).u32(1).u32(4096).u32(maximumPayload).toArray();
        reply(option, 3, sizes);
        reply(option, 1);
        transmission = true;
      }
      default -> throw new AssertionError("option " + option);
    }
    return true;
  }

  private void reply(int option, int type, byte... data) {
    Bytes reply = Bytes.of().u64(0x0003e889045565a9L).u32(option).u32(type).u32(data.length);
    toSend.writeBytes(reply.raw(data).toArray());
  }

  private boolean request() {
    int header = extended ? 32 : 28;
    if (received.length() < header) {
      return false;
    }
    StrictClient.check(
        received.i32(0) == (extended ? 0x21e41c71 : 0x25609513), "a request's magic");
    int type = received.u16(6);
    long length = extended ? received.i64(24) : received.u32(24);
    int payload = type == 1 ? (int) length : 0;
    StrictClient.check(payload <= maximumPayload, "a payload of %d bytes", payload);
    if (received.length() < header + payload) {
      return false;
    }
    Answer answer = new Answer(type, received.i64(8), received.i64(16), length);
    received.drop(header + payload);
    if (type == 2) {
      ended = true;
    } else {
      answer.write();
    }
    return true;
  }

  /** The answer to one request. */
  private final class Answer {
    private final int type;
    private final long cookie;
    private final long offset;
    private final long length;
    private final BitSet covered = new BitSet();
    private boolean failed;
    private boolean mapped;
    private boolean done;

    Answer(int type, long cookie, long offset, long length) {
      this.type = type;
      this.cookie = cookie;
      this.offset = offset;
      this.length = length;
    }

    void write() {
      for (int i = 0; i < MOST_STEPS && !done && !ended; i++) {
        if (structured || extended) {
          chunk();
        } else {
          simple();
        }
      }
      if (!done && !ended) {
        finish();
      }
    }

    private void simple() {
      switch (choices.u8() % 8) {
        case 0, 1, 2, 3 -> succeedSimply();
        case 4 -> {
          int code = choices.of(5, 1, 22, 28, 95, 108, 75, 12, 99);
          simpleReply(code, cookie);
          fail(code);
          done = true;
        }
        case 5 -> {
          wrong = true;
          simpleReply(choices.u8(), cookie + choices.u8());
          toSend.writeBytes(choices.bytes(choices.u8()));
        }
        case 6 -> lie();
        default -> ended = true;
      }
    }

    private void simpleReply(int code, long number) {
      toSend.writeBytes(Bytes.of().u32(0x67446698).u32(code).u64(number).toArray());
    }

    private void succeedSimply() {
      simpleReply(0, cookie);
      if (type == 0) {
        byte[] data = data((int) offset, (int) length);
        toSend.writeBytes(data);
      }
      done = true;
    }

    private byte[] data(int start, int count) {
      byte[] data = new byte[count];
      Arrays.fill(data, (byte) choices.u8());
      System.arraycopy(data, 0, told, start, count);
      return data;
    }

    private void fail(int code) {
      if (error == 0) {
        error = code;
      }
      failed = true;
    }

    private void lie() {
      wrong = true;
      toSend.writeBytes(choices.bytes(choices.u8()));
    }

    private void chunk() {
      int step = choices.u8();
      switch (step % 12) {
        case 0, 1 -> finish();
        case 2, 3 -> content(false);
        case 4 -> content(true);
        case 5 -> {
          int code = choices.of(5, 1, 22, 28, 95, 108, 75, 12, 99);
          byte[] text = choices.text(choices.u8() % 40).getBytes(UTF_8);
          boolean where = (step & 0x80) != 0;
          Bytes data = Bytes.of().u32(code).u16(text.length).raw(text);
          done = (step & 0x40) != 0;
          header(where ? 0x8002 : 0x8001, cookie, data.toArray().length + (where ? 8 : 0));
          toSend.writeBytes((where ? data.u64(offset) : data).toArray());
          fail(code);
        }
        case 6 -> {
          if (type == 7 && !mapped) {
            extents();
          } else {
            lie();
          }
        }
        case 7 -> {
          wrong = true;
          done = (step & 0x80) != 0;
          header(choices.u16(), cookie + choices.u8(), choices.u16());
          toSend.writeBytes(choices.bytes(choices.u8()));
        }
        case 8 -> {
          // Content outside of the request, or sent twice.
          wrong = true;
          int most = choices.u16();
          int at = choices.u16();
          header(1, cookie, 8L + most);
          toSend.writeBytes(Bytes.of().u64(offset + at - 100).toArray());
          toSend.writeBytes(new byte[most]);
        }
        case 9 -> {
          wrong = true;
          header(choices.of(5, 6), cookie, choices.u8());
          toSend.writeBytes(Bytes.of().u32(7).raw(choices.bytes(choices.u8())).toArray());
        }
        case 10 -> lie();
        default -> ended = true;
      }
    }

    private void header(int chunk, long number, long bytes) {
      Bytes header =
          Bytes.of()
              .u32(extended ? 0x6e8a278c : 0x668e33ef)
              .u16(done ? 1 : 0)
              .u16(chunk)
              .u64(number);
      toSend.writeBytes((extended ? header.u64(offset).u64(bytes) : header.u32(bytes)).toArray());
    }

    /** Sends a piece of the data that has not been sent yet. */
    private void content(boolean hole) {
      int start = type == 0 ? covered.nextClearBit(choices.u16() % (int) length) : 0;
      if (type != 0 || start >= length || failed) {
        finish();
        return;
      }
      int next = covered.nextSetBit(start);
      int room = (int) (next < 0 ? length : next) - start;
      int count = Math.clamp(choices.u16(), 1, room);
      part(start, count, hole);
    }

    private void part(int start, int count, boolean hole) {
      covered.set(start, start + count);
      int at = (int) offset + start;
      if (hole) {
        header(2, cookie, 12);
        toSend.writeBytes(Bytes.of().u64(at).u32(count).toArray());
        Arrays.fill(told, at, at + count, (byte) 0);
      } else {
        header(1, cookie, 8L + count);
        toSend.writeBytes(Bytes.of().u64(at).raw(data(at, count)).toArray());
      }
    }

    private void extents() {
      int count = 1 + choices.u8() % 5;
      header(extended ? 6 : 5, cookie, extended ? 8 + 16L * count : 4 + 8L * count);
      Bytes extents = Bytes.of().u32(7);
      if (extended) {
        extents.u32(count);
      }
      for (int i = 0; i < count; i++) {
        long bytes = 1L + choices.u16();
        long status = choices.u8() % 4;
        if (extended) {
          extents.u64(bytes).u64(status);
        } else {
          extents.u32(bytes).u32(status);
        }
      }
      toSend.writeBytes(extents.toArray());
      mapped = true;
    }

    /** Completes the answer as the protocol demands. */
    private void finish() {
      if (!structured && !extended) {
        succeedSimply();
        return;
      }
      while (type == 0 && !failed && covered.cardinality() < length) {
        int start = covered.nextClearBit(0);
        int next = covered.nextSetBit(start);
        part(start, (int) (next < 0 ? length : next) - start, false);
      }
      if (type == 7 && !mapped && !failed) {
        extents();
      }
      done = true;
      header(0, cookie, 0);
    }
  }
}
