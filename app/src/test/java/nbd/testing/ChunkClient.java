package nbd.testing;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import nbd.testing.RawClient.Export;

/**
 * A client that has agreed on structured replies or extended headers. It puts the chunks of each
 * reply together, and checks every rule that they have to keep.
 */
public final class ChunkClient implements Closeable {
  public static final int DF = 4;
  public static final int REQ_ONE = 8;
  public static final int PAYLOAD_LEN = 0x20;
  public static final int CONTEXT = 1;

  private static final int SIMPLE = 0x67446698;
  private static final int STRUCTURED = 0x668e33ef;
  private static final int EXTENDED = 0x6e8a278c;
  private static final int LONGEST_MESSAGE = 4096;

  private final RawClient raw;
  private final Layout layout;
  private final Export export;
  private final Map<Long, Request> sent = new HashMap<>();
  private final Map<Long, Answer> answers = new HashMap<>();
  private long nextCookie = 0x0ddc_0000_0000_0001L;
  private long bytesTaken;

  /** What was agreed on. */
  public enum Layout {
    STRUCTURED(8, 20),
    EXTENDED(11, 32);

    private final int option;
    private final int headerBytes;

    Layout(int option, int headerBytes) {
      this.option = option;
      this.headerBytes = headerBytes;
    }

    /** The option that agrees on it. */
    public int option() {
      return option;
    }
  }

  private record Request(int type, long offset, long length) {}

  /** An extent of a BLOCK_STATUS. */
  public record Told(long length, long status) {}

  /** All chunks of a reply, put together. */
  public static final class Answer {
    private final Request request;
    private final List<Integer> types = new ArrayList<>();
    private final List<Told> extents = new ArrayList<>();
    private final byte[] data;
    private final BitSet covered = new BitSet();
    private int error;
    private String message = "";
    private long errorAt = -1;
    private boolean done;

    private Answer(Request request) {
      this.request = request;
      boolean hasData = request.type == RawClient.READ && request.length > 0;
      int length = hasData && request.length < 1 << 26 ? (int) request.length : 0;
      this.data = new byte[length];
    }

    /** The first error of the reply, or 0. */
    public int error() {
      return error;
    }

    /** What the error says. */
    public String message() {
      return message;
    }

    /** Where the error is, or -1. */
    public long errorAt() {
      return errorAt;
    }

    /** What was read; zero where nothing came. */
    public byte[] data() {
      return data;
    }

    /** The types of the chunks, in order; -1 for a simple reply. */
    public List<Integer> types() {
      return types;
    }

    /** What BLOCK_STATUS says. */
    public List<Told> extents() {
      return extents;
    }

    /** The bytes of the request that data or holes have come for. */
    public int bytesCovered() {
      return covered.cardinality();
    }

    private void content(long at, ByteBuffer bytes, int length) {
      assertThat(request.type).as("content for").isEqualTo(RawClient.READ);
      long start = at - request.offset;
      assertThat(length).as("content's length").isPositive();
      assertThat(start).as("content's place").isBetween(0L, request.length - length);
      int next = covered.nextSetBit((int) start);
      assertThat(next < 0 || next >= start + length).as("byte %d came before", next).isTrue();
      covered.set((int) start, (int) start + length);
      bytes.get(data, (int) start, bytes.remaining());
    }

    private void take(int type, ByteBuffer payload, Layout layout) {
      types.add(type);
      switch (type) {
        case 0 -> {}
        case 1 -> {
          long at = payload.getLong();
          content(at, payload, payload.remaining());
        }
        case 2 -> {
          long at = payload.getLong();
          int length = payload.getInt();
          content(at, payload, length);
        }
        case 5, 6 -> {
          assertThat(request.type).isEqualTo(RawClient.BLOCK_STATUS);
          boolean wide = layout == Layout.EXTENDED;
          assertThat(type).as("the type for the layout").isEqualTo(wide ? 6 : 5);
          assertThat(extents).as("a second list for the same context").isEmpty();
          assertThat(payload.getInt()).as("context").isEqualTo(CONTEXT);
          int count = wide ? payload.getInt() : payload.remaining() / 8;
          assertThat(payload.remaining()).isEqualTo(count * (wide ? 16 : 8)).isPositive();
          while (payload.hasRemaining()) {
            extents.add(
                wide
                    ? new Told(payload.getLong(), payload.getLong())
                    : new Told(
                        Integer.toUnsignedLong(payload.getInt()),
                        Integer.toUnsignedLong(payload.getInt())));
          }
        }
        case 0x8001, 0x8002 -> {
          int number = payload.getInt();
          assertThat(number).isPositive();
          int length = Short.toUnsignedInt(payload.getShort());
          assertThat(length).isBetween(0, LONGEST_MESSAGE);
          byte[] text = new byte[length];
          payload.get(text);
          error = error == 0 ? number : error;
          message = new String(text, UTF_8);
          if (type == 0x8002) {
            errorAt = payload.getLong();
            assertThat(errorAt)
                .isBetween(request.offset, request.offset + Math.max(0, request.length - 1));
          }
        }
        default -> throw new AssertionError("chunk of type " + type);
      }
      assertThat(payload.remaining()).as("bytes left in the chunk").isZero();
    }

    private void end(boolean df) {
      done = true;
      long contents = types.stream().filter(type -> type == 1 || type == 2).count();
      if (df) {
        assertThat(contents).as("content chunks with DF").isLessThanOrEqualTo(1);
      }
      if (error == 0 && request.type == RawClient.READ) {
        assertThat(bytesCovered()).as("bytes that came").isEqualTo((int) request.length);
      }
      if (error == 0 && request.type == RawClient.BLOCK_STATUS) {
        assertThat(extents).isNotEmpty();
      }
    }
  }

  private ChunkClient(RawClient raw, Layout layout, Export export) {
    this.raw = raw;
    this.layout = layout;
    this.export = export;
  }

  /** Enters transmission, from the greeting on, with base:allocation. */
  public static ChunkClient enter(RawClient raw, Layout layout, String name) throws IOException {
    raw.hello(3).option(layout.option).expectAck(layout.option);
    selectAllocation(raw, name);
    return go(raw, layout, name);
  }

  /** Enters transmission after the options. */
  public static ChunkClient go(RawClient raw, Layout layout, String name) throws IOException {
    raw.option(RawClient.GO, RawClient.infoData(name));
    return new ChunkClient(raw, layout, RawClient.export(raw.expectInfos(RawClient.GO)));
  }

  /** Selects base:allocation. */
  public static void selectAllocation(RawClient raw, String name) throws IOException {
    raw.option(10, contextData(name, "base:allocation"));
    RawClient.Reply reply = raw.reply(10);
    assertThat(reply.type()).isEqualTo(4);
    assertThat(reply.data()).isEqualTo(Bytes.of().u32(CONTEXT).text("base:allocation").toArray());
    raw.expectAck(10);
  }

  /** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
  public static byte[] contextData(String name, String... queries) {
    byte[] bytes = name.getBytes(UTF_8);
    Bytes data = Bytes.of().u32(bytes.length).raw(bytes).u32(queries.length);
    for (String query : queries) {
      data.u32(query.getBytes(UTF_8).length).text(query);
    }
    return data.toArray();
  }

  /** What the server says of the export. */
  public Export export() {
    return export;
  }

  /** The client below. */
  public RawClient raw() {
    return raw;
  }

  /** The bytes of replies so far. */
  public long bytesTaken() {
    return bytesTaken;
  }

  /** A request's bytes. */
  public byte[] requestBytes(int flags, int type, long cookie, long offset, long length) {
    if (layout == Layout.STRUCTURED) {
      return RawClient.requestBytes(flags, type, cookie, offset, length);
    }
    return Bytes.of()
        .u32(0x21e41c71)
        .u16(flags)
        .u16(type)
        .u64(cookie)
        .u64(offset)
        .u64(length)
        .toArray();
  }

  /** Sends a request as it is told, and what follows it; gives the cookie. */
  public long send(int flags, int type, long offset, long length, byte... payload)
      throws IOException {
    return sendAs(flags, type, offset, length, length, payload);
  }

  /** The same where the header's length is not that of the range. */
  private long sendAs(
      int flags, int type, long offset, long headerLength, long length, byte... payload)
      throws IOException {
    long cookie = nextCookie++;
    sent.put(cookie, new Request(type | (flags & DF) << 16, offset, length));
    raw.send(requestBytes(flags, type, cookie, offset, headerLength)).send(payload);
    return cookie;
  }

  /** Sends a request, and waits for its answer. */
  public Answer call(int flags, int type, long offset, long length, byte... payload)
      throws IOException {
    return await(send(flags, type, offset, length, payload));
  }

  /** Sends a request, and waits for its answer, which has to be this error. */
  public Answer call(Expect expected, int flags, int type, long offset, long length, byte... data)
      throws IOException {
    Answer answer = call(flags, type, offset, length, data);
    assertThat(answer.error())
        .as("type %d flags %x %x+%x: %s", type, flags, offset, length, answer.message())
        .isEqualTo(expected.error);
    return answer;
  }

  /** An error number. */
  public record Expect(int error) {}

  /** A BLOCK_STATUS with a payload: the range's length, and contexts. */
  public Answer filteredStatus(int flags, long offset, long length, int... contexts)
      throws IOException {
    Bytes payload = Bytes.of().u64(length);
    for (int context : contexts) {
      payload.u32(context);
    }
    byte[] bytes = payload.toArray();
    int type = RawClient.BLOCK_STATUS;
    return await(
        sendAs(flags | PAYLOAD_LEN, type, offset, bytes.length, Math.max(0, length), bytes));
  }

  /** Reads. */
  public byte[] read(long offset, int length) throws IOException {
    return call(new Expect(0), 0, RawClient.READ, offset, length).data();
  }

  /** Writes. */
  public void write(long offset, byte... data) throws IOException {
    call(new Expect(0), writeFlags(), RawClient.WRITE, offset, data.length, data);
  }

  /** What a WRITE has to have among its flags. */
  public int writeFlags() {
    return layout == Layout.EXTENDED ? PAYLOAD_LEN : 0;
  }

  /** Asks for extents. */
  public List<Told> status(int flags, long offset, long length) throws IOException {
    return call(new Expect(0), flags, RawClient.BLOCK_STATUS, offset, length).extents();
  }

  /** Waits for the answer to a request, and keeps those to others. */
  public Answer await(long cookie) throws IOException {
    while (true) {
      Answer answer = answers.get(cookie);
      if (answer != null && answer.done) {
        answers.remove(cookie);
        return answer;
      }
      takeChunk();
    }
  }

  private ByteBuffer take(int count) throws IOException {
    bytesTaken += count;
    return ByteBuffer.wrap(raw.take(count));
  }

  private void takeChunk() throws IOException {
    int magic = take(4).getInt();
    if (magic == SIMPLE) {
      simple();
      return;
    }
    boolean wide = layout == Layout.EXTENDED;
    assertThat(magic).as("the magic").isEqualTo(wide ? EXTENDED : STRUCTURED);
    ByteBuffer header = take(layout.headerBytes - 4);
    int flags = header.getShort();
    assertThat(flags).as("chunk flags").isBetween(0, 1);
    int type = Short.toUnsignedInt(header.getShort());
    long cookie = header.getLong();
    Request request = sent.get(cookie);
    assertThat(request).as("the request %x", cookie).isNotNull();
    if (wide) {
      assertThat(header.getLong()).as("the offset").isEqualTo(request.offset);
    }
    long length = wide ? header.getLong() : header.getInt();
    assertThat(length).as("the chunk's length").isBetween(0L, 1L << 26);
    Answer answer = answer(cookie, request);
    assertThat(answer.done).as("a chunk after the last").isFalse();
    answer.take(type, take((int) length), layout);
    if (type == 0) {
      assertThat(length).isZero();
      assertThat(flags).as("a chunk of nothing is the last").isEqualTo(1);
    }
    if (flags == 1) {
      answer.end((request.type & DF << 16) != 0);
    }
  }

  private Answer answer(long cookie, Request request) {
    int type = request.type & 0xffff;
    return answers.computeIfAbsent(
        cookie, _ -> new Answer(new Request(type, request.offset, request.length)));
  }

  private void simple() throws IOException {
    assertThat(layout).as("a simple reply").isEqualTo(Layout.STRUCTURED);
    ByteBuffer header = take(12);
    int error = header.getInt();
    assertThat(error).as("errors have a text").isZero();
    long cookie = header.getLong();
    Request request = sent.get(cookie);
    assertThat(request).isNotNull();
    assertThat(request.type & 0xffff)
        .as("the command that a simple reply answers")
        .isNotIn(RawClient.READ, RawClient.BLOCK_STATUS);
    Answer answer = answer(cookie, request);
    answer.types.add(-1);
    answer.done = true;
  }

  /** Whether the data is what a range of an image has. */
  public static boolean isRange(byte[] data, byte[] image, int offset) {
    return Arrays.equals(data, 0, data.length, image, offset, offset + data.length);
  }

  /** Says goodbye, and waits for the end. */
  public void disconnect() throws IOException {
    raw.send(requestBytes(0, RawClient.DISC, 1, 0, 0)).expectEnd();
    close();
  }

  @Override
  public void close() throws IOException {
    raw.close();
  }
}
