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
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import nbd.protocol.TransmissionFlag;
import nbd.testing.RawClient.Export;

/**
 * A client in the transmission phase. It puts each reply together, whatever its form, and checks
 * every rule that replies have to keep.
 */
public final class CheckedClient implements Closeable {
  private static final int SIMPLE = 0x67446698;
  private static final int STRUCTURED = 0x668e33ef;
  private static final int EXTENDED = 0x6e8a278c;
  private static final int LONGEST_MESSAGE = 4096;

  private final RawClient raw;
  private final Replies replies;
  private final Export export;
  private final Set<Integer> contexts;
  private final Map<Long, Answer> sent = new HashMap<>();
  private long nextCookie = 0x0ddc_0000_0000_0001L;
  private long bytesTaken;

  /** An extent in the reply to a BLOCK_STATUS. */
  public record StatusExtent(long length, long status) {}

  /** The reply to one request. */
  public static final class Answer {
    private final int flags;
    private final int type;
    private final long offset;
    private final long length;
    private final List<Integer> types = new ArrayList<>();
    private final Map<Integer, List<StatusExtent>> extents = new LinkedHashMap<>();
    private final Set<Integer> contexts;
    private final BitSet covered = new BitSet();
    private byte[] data = new byte[0];
    private int error;
    private String message = "";
    private long errorAt = -1;
    private boolean done;

    private Answer(int flags, int type, long offset, long length, Set<Integer> contexts) {
      this.flags = flags;
      this.type = type;
      this.offset = offset;
      this.length = length;
      this.contexts = contexts;
    }

    /** Returns the first error of the reply, or 0. */
    public int error() {
      return error;
    }

    /** Returns the last error's message; empty without an error, and in a simple reply. */
    public String message() {
      return message;
    }

    /** Returns the offset of the error, or -1 if the reply names none. */
    public long errorAt() {
      return errorAt;
    }

    /**
     * Returns the data that was read: zeroes where nothing came, and empty if nothing came at all.
     */
    public byte[] data() {
      return data;
    }

    /** Returns the types of the chunks, in order; -1 stands for a simple reply. */
    public List<Integer> types() {
      return types;
    }

    /** Returns the extents of the reply to a BLOCK_STATUS that has one context. */
    public List<StatusExtent> extents() {
      assertThat(extents).as("contexts in the reply").hasSizeLessThan(2);
      return extents.values().stream().findFirst().orElse(List.of());
    }

    /** Returns the extents of the reply to a BLOCK_STATUS by the context's number, in order. */
    public Map<Integer, List<StatusExtent>> extentsByContext() {
      return extents;
    }

    /** Returns the number of the request's bytes for which data or holes have come. */
    public int bytesCovered() {
      return covered.cardinality();
    }

    private void content(long at, ByteBuffer bytes, int count) {
      assertThat(type).as("content for").isEqualTo(RawClient.READ);
      long start = at - offset;
      assertThat(count).as("content's length").isPositive();
      assertThat(start).as("content's place").isBetween(0L, length - count);
      if (data.length == 0) {
        data = new byte[(int) length];
      }
      int next = covered.nextSetBit((int) start);
      assertThat(next < 0 || next >= start + count).as("byte %d came before", next).isTrue();
      covered.set((int) start, (int) start + count);
      bytes.get(data, (int) start, bytes.remaining());
    }

    private void chunk(int chunkType, ByteBuffer payload, boolean extended) {
      types.add(chunkType);
      switch (chunkType) {
        case 0 -> {}
        case 1 -> {
          long at = payload.getLong();
          content(at, payload, payload.remaining());
        }
        case 2 -> {
          long at = payload.getLong();
          int count = payload.getInt();
          content(at, payload, count);
        }
        case 5, 6 -> {
          assertThat(type).isEqualTo(RawClient.BLOCK_STATUS);
          assertThat(chunkType).as("the type for the header").isEqualTo(extended ? 6 : 5);
          int context = payload.getInt();
          assertThat(context).as("the context").isIn(contexts);
          List<StatusExtent> list = new ArrayList<>();
          assertThat(extents.put(context, list)).as("a second list of a context").isNull();
          int count = extended ? payload.getInt() : payload.remaining() / 8;
          assertThat(payload.remaining()).isEqualTo(count * (extended ? 16 : 8)).isPositive();
          while (payload.hasRemaining()) {
            list.add(
                extended
                    ? new StatusExtent(payload.getLong(), payload.getLong())
                    : new StatusExtent(
                        Integer.toUnsignedLong(payload.getInt()),
                        Integer.toUnsignedLong(payload.getInt())));
          }
        }
        case 0x8001, 0x8002 -> error(chunkType == 0x8002, payload);
        default -> throw new AssertionError("chunk of type " + chunkType);
      }
      assertThat(payload.remaining()).as("bytes left in the chunk").isZero();
    }

    private void error(boolean hasOffset, ByteBuffer payload) {
      int number = payload.getInt();
      assertThat(number).isPositive();
      byte[] text = new byte[Short.toUnsignedInt(payload.getShort())];
      assertThat(text.length).as("the message's length").isBetween(1, LONGEST_MESSAGE);
      payload.get(text);
      error = error == 0 ? number : error;
      message = new String(text, UTF_8);
      if (hasOffset) {
        errorAt = payload.getLong();
        assertThat(errorAt).isBetween(offset, offset + Math.max(0, length - 1));
      }
    }

    private void end() {
      done = true;
      if ((flags & RawClient.DF) != 0) {
        long contents = types.stream().filter(chunk -> chunk == 1 || chunk == 2).count();
        assertThat(contents).as("content chunks with DF").isLessThanOrEqualTo(1);
      }
      if (error == 0 && type == RawClient.READ) {
        assertThat(bytesCovered()).as("bytes that came").isEqualTo((int) length);
      }
      if (error == 0 && type == RawClient.BLOCK_STATUS) {
        assertThat(extents.keySet()).as("the contexts in the reply").isEqualTo(contexts);
      }
    }
  }

  private CheckedClient(RawClient raw, Replies replies, Export export, Set<Integer> contexts) {
    this.raw = raw;
    this.replies = replies;
    this.export = export;
    this.contexts = contexts;
  }

  /** Enters transmission, from the greeting on; with base:allocation, unless replies are simple. */
  public static CheckedClient enter(RawClient raw, Replies replies, String name)
      throws IOException {
    raw.hello(3).agree(replies);
    if (replies != Replies.SIMPLE) {
      raw.selectAllocation(name);
    }
    return go(raw, replies, name);
  }

  /** Enters transmission after the options; base:allocation may have been selected. */
  public static CheckedClient go(RawClient raw, Replies replies, String name) throws IOException {
    return go(raw, replies, name, RawClient.CONTEXT);
  }

  /**
   * Enters transmission after the options.
   *
   * @param contexts the numbers of those that were selected
   */
  public static CheckedClient go(RawClient raw, Replies replies, String name, Integer... contexts)
      throws IOException {
    return new CheckedClient(raw, replies, raw.go(name), Set.of(contexts));
  }

  public Replies replies() {
    return replies;
  }

  /** Returns the export's size and flags, as the server sent them. */
  public Export export() {
    return export;
  }

  /** Says whether the server has sent a flag. */
  public boolean has(TransmissionFlag flag) {
    return (export.flags() & flag.bit()) != 0;
  }

  /** Returns the client that sends and takes the bytes. */
  public RawClient raw() {
    return raw;
  }

  /** Returns the number of bytes of all replies so far. */
  public long bytesTaken() {
    return bytesTaken;
  }

  private boolean isExtended() {
    return replies == Replies.EXTENDED;
  }

  /** Returns the flags that every WRITE has to have. */
  public int writeFlags() {
    return isExtended() ? RawClient.PAYLOAD_LEN : 0;
  }

  /** Returns the flags that every request of a type has to have. */
  public int flagsOf(int type) {
    return type == RawClient.WRITE ? writeFlags() : 0;
  }

  /** Encodes a request's header. */
  public byte[] requestBytes(int flags, int type, long cookie, long offset, long length) {
    if (!isExtended()) {
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

  /** Sends a request as it is given, with its payload, and returns its cookie. */
  public long send(int flags, int type, long offset, long length, byte... payload)
      throws IOException {
    return sendAs(flags, type, offset, length, length, contexts, payload);
  }

  /** Sends a request whose header may have another length than its range. */
  private long sendAs(
      int flags,
      int type,
      long offset,
      long headerLength,
      long length,
      Set<Integer> asked,
      byte... payload)
      throws IOException {
    long cookie = nextCookie++;
    sent.put(cookie, new Answer(flags, type, offset, length, asked));
    raw.send(requestBytes(flags, type, cookie, offset, headerLength)).send(payload);
    return cookie;
  }

  /**
   * Sends a request, and waits for its answer.
   *
   * @param payload zeroes are sent instead of an empty one if the request needs one
   */
  public Answer ask(int flags, int type, long offset, long length, byte... payload)
      throws IOException {
    boolean follows = isExtended() ? (flags & RawClient.PAYLOAD_LEN) != 0 : type == RawClient.WRITE;
    byte[] sends = payload.length == 0 && follows ? new byte[(int) length] : payload;
    return await(send(flags, type, offset, length, sends));
  }

  /**
   * Sends a request, waits for its answer, and checks that the answer has this error; 0 for none.
   */
  public Answer call(int error, int flags, int type, long offset, long length, byte... payload)
      throws IOException {
    Answer answer = ask(flags, type, offset, length, payload);
    assertThat(answer.error())
        .as("type %d flags %x %x+%x: %s", type, flags, offset, length, answer.message())
        .isEqualTo(error);
    return answer;
  }

  /** Sends a BLOCK_STATUS whose payload names contexts, and waits for its answer. */
  public Answer filteredStatus(int flags, long offset, long length, int... asked)
      throws IOException {
    Bytes payload = Bytes.of().u64(length);
    Set<Integer> named = new HashSet<>();
    for (int context : asked) {
      payload.u32(context);
      named.add(context);
    }
    byte[] bytes = payload.toArray();
    int all = flags | RawClient.PAYLOAD_LEN;
    int type = RawClient.BLOCK_STATUS;
    return await(sendAs(all, type, offset, bytes.length, Math.max(0, length), named, bytes));
  }

  public byte[] read(long offset, int length) throws IOException {
    return call(0, 0, RawClient.READ, offset, length).data();
  }

  public void write(long offset, byte... data) throws IOException {
    call(0, writeFlags(), RawClient.WRITE, offset, data.length, data);
  }

  public void flush() throws IOException {
    call(0, 0, RawClient.FLUSH, 0, 0);
  }

  /** Asks for extents. */
  public List<StatusExtent> status(int flags, long offset, long length) throws IOException {
    return call(0, flags, RawClient.BLOCK_STATUS, offset, length).extents();
  }

  /** Waits for the answer to a request, and checks that it has this error; 0 for none. */
  public Answer await(int error, long cookie) throws IOException {
    Answer answer = await(cookie);
    assertThat(answer.error()).as("request %x: %s", cookie, answer.message()).isEqualTo(error);
    return answer;
  }

  /** Waits for the answer to a request; other requests' replies are kept for them. */
  public Answer await(long cookie) throws IOException {
    Answer answer = sent.get(cookie);
    while (!answer.done) {
      takeReply();
    }
    sent.remove(cookie);
    return answer;
  }

  private ByteBuffer take(int count) throws IOException {
    bytesTaken += count;
    return ByteBuffer.wrap(raw.take(count));
  }

  private Answer answer(long cookie) {
    Answer answer = sent.get(cookie);
    assertThat(answer).as("the request %x", cookie).isNotNull();
    assertThat(answer.done).as("a reply after the last").isFalse();
    return answer;
  }

  private void takeReply() throws IOException {
    int magic = take(4).getInt();
    if (magic == SIMPLE) {
      takeSimple();
      return;
    }
    assertThat(replies).as("a chunk").isNotEqualTo(Replies.SIMPLE);
    assertThat(magic).as("the magic").isEqualTo(isExtended() ? EXTENDED : STRUCTURED);
    ByteBuffer header = take(replies.headerBytes() - 4);
    int flags = header.getShort();
    assertThat(flags).as("chunk flags").isBetween(0, 1);
    int type = Short.toUnsignedInt(header.getShort());
    Answer answer = answer(header.getLong());
    if (isExtended()) {
      assertThat(header.getLong()).as("the offset").isEqualTo(answer.offset);
    }
    long length = isExtended() ? header.getLong() : header.getInt();
    assertThat(length).as("the chunk's length").isBetween(0L, 1L << 26);
    answer.chunk(type, take((int) length), isExtended());
    if (type == 0) {
      assertThat(length).isZero();
      assertThat(flags).as("a chunk of nothing is the last").isEqualTo(1);
    }
    if (flags == 1) {
      answer.end();
    }
  }

  private void takeSimple() throws IOException {
    assertThat(replies).as("a simple reply").isNotEqualTo(Replies.EXTENDED);
    ByteBuffer header = take(12);
    int error = header.getInt();
    Answer answer = answer(header.getLong());
    answer.types.add(-1);
    answer.error = error;
    if (replies == Replies.STRUCTURED) {
      assertThat(error).as("errors have a text").isZero();
      assertThat(answer.type)
          .as("the command that a simple reply answers")
          .isNotIn(RawClient.READ, RawClient.BLOCK_STATUS);
    } else if (error == 0 && answer.type == RawClient.READ && answer.length > 0) {
      int length = (int) answer.length;
      answer.content(answer.offset, take(length), length);
    }
    answer.end();
  }

  /** Says whether the data equals the range of an image that begins at the offset. */
  public static boolean isRange(byte[] data, byte[] image, int offset) {
    return Arrays.equals(data, 0, data.length, image, offset, offset + data.length);
  }

  /** Sends DISC, and waits for the end of the stream. */
  public void disconnect() throws IOException {
    raw.send(requestBytes(0, RawClient.DISC, 1, 0, 0)).expectEnd();
    close();
  }

  @Override
  public void close() throws IOException {
    raw.close();
  }
}
