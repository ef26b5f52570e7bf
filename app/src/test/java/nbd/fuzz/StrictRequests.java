package nbd.fuzz;

import static java.nio.charset.StandardCharsets.UTF_8;
import static nbd.fuzz.StrictClient.check;
import static nbd.testing.RawClient.BLOCK_STATUS;
import static nbd.testing.RawClient.DF;
import static nbd.testing.RawClient.PAYLOAD_LEN;
import static nbd.testing.RawClient.READ;
import static nbd.testing.RawClient.REQ_ONE;
import static nbd.testing.RawClient.TRIM;
import static nbd.testing.RawClient.WRITE;
import static nbd.testing.RawClient.WRITE_ZEROES;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.util.BitSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import nbd.conformance.Rules;
import nbd.fuzz.StrictClient.Over;
import nbd.fuzz.StrictClient.Phase;
import nbd.fuzz.StrictOptions.Agreed;
import nbd.protocol.BlockSizes;
import nbd.testing.BitmapBackend;
import nbd.testing.RawClient;

/**
 * The transmission phase as a strict client sees it: the requests in flight and their possible
 * errors. It checks that each request gets one complete reply, with the right data.
 */
final class StrictRequests implements Phase {
  private static final int DISC = 2;

  private static final int SIMPLE_REPLY = 0x67446698;
  private static final int CHUNK = 0x668e33ef;
  private static final int EXTENDED_CHUNK = 0x6e8a278c;

  /** The server skips a refused WRITE up to this length; it disconnects at a longer one. */
  private static final long LONGEST_DROPPED = 128L << 20;

  private final Setup setup;
  private final Backlog sent;
  private final Backlog received;
  private final Disk disk;
  private final boolean chunks;
  private final boolean extended;
  private final boolean filters;
  private final Set<Integer> contexts;
  private final Rules rules;

  private final Map<Long, Request> pending = new HashMap<>();

  /** Set when the rest of the sent bytes is ignored. */
  private boolean ending;

  /** Set when the server may leave without answering the requests in flight. */
  private boolean abrupt;

  /** Set when two requests in flight have one cookie, so that replies cannot be told apart. */
  private boolean ambiguous;

  StrictRequests(
      Setup setup,
      Backlog sent,
      Backlog received,
      Disk disk,
      Agreed agreed,
      int flags,
      Set<Integer> contexts) {
    this.setup = setup;
    this.sent = sent;
    this.received = received;
    this.disk = disk;
    this.chunks = agreed != Agreed.SIMPLE;
    this.extended = agreed == Agreed.EXTENDED;
    this.contexts = contexts;
    this.filters = (flags & 1 << 12) != 0;
    this.rules =
        new Rules(
            flags,
            extended,
            !contexts.isEmpty() && chunks,
            setup.size(),
            new BlockSizes(setup.minimum(), 4096, Setup.MAXIMUM_PAYLOAD));
  }

  /** A request in flight. */
  private static final class Request {
    final int flags;
    final int type;
    final long cookie;
    final long offset;

    /** The length of its range. */
    final long length;

    final ByteBuffer payload;
    final Set<Integer> errors = new TreeSet<>();
    final BitSet covered = new BitSet();
    boolean chunked;
    int failed;
    boolean told;

    /** The contexts that are asked for and have not been told. */
    final Set<Integer> untold;

    Request(
        int flags,
        int type,
        long cookie,
        long offset,
        long length,
        ByteBuffer payload,
        Set<Integer> contexts) {
      this.flags = flags;
      this.type = type;
      this.cookie = cookie;
      this.offset = offset;
      this.length = length;
      this.payload = payload;
      this.untold = new HashSet<>(contexts);
    }

    boolean maySucceed() {
      return errors.isEmpty() || errors.contains(0);
    }

    boolean changes() {
      boolean writes = type == WRITE || type == WRITE_ZEROES || type == TRIM;
      return writes && maySucceed() && length > 0;
    }

    @SuppressWarnings("AnnotateFormatMethod") // the annotation is in no library that is here
    void check(boolean right, String what, Object... arguments) {
      StrictClient.check(right, "%s: %s", this, right ? "" : what.formatted(arguments));
    }

    @Override
    public String toString() {
      return "command %d of %s at %s with flags %x"
          .formatted(type, Long.toUnsignedString(length), Long.toUnsignedString(offset), flags);
    }
  }

  @Override
  public Phase advance() {
    while (!ending && takeRequest()) {
      // Each complete request is taken.
    }
    while (!ambiguous && takeReply()) {
      // Each complete reply is checked.
    }
    if (ambiguous) {
      received.drop(received.length());
    }
    boolean over = ending && !abrupt && pending.isEmpty();
    return over && !ambiguous ? new Over(received) : this;
  }

  private boolean takeRequest() {
    int header = extended ? 32 : 28;
    if (sent.length() < header) {
      return false;
    }
    if (sent.i32(0) != (extended ? 0x21e41c71 : 0x25609513)) {
      return endAbruptly();
    }
    int requestFlags = sent.u16(4);
    int type = sent.u16(6);
    long offset = sent.i64(16);
    long length = extended ? sent.i64(24) : sent.u32(24);
    if (type == DISC) {
      ending = true;
      return false;
    }
    boolean loaded = extended ? (requestFlags & PAYLOAD_LEN) != 0 : type == WRITE;
    long payload = loaded ? length : 0;
    long most = type == WRITE ? LONGEST_DROPPED : Setup.MAXIMUM_PAYLOAD;
    if (Long.compareUnsigned(payload, most) > 0) {
      return endAbruptly();
    }
    if (payload < 0 || payload > sent.length() - header) {
      return false;
    }
    long cookie = sent.i64(8);
    sent.drop(header);
    ByteBuffer data = sent.take((int) payload);
    add(request(requestFlags, type, cookie, offset, length, data));
    return true;
  }

  private boolean endAbruptly() {
    ending = true;
    abrupt = true;
    return false;
  }

  private void add(Request request) {
    if (request.changes()) {
      disk.begin((int) request.offset, (int) request.length);
    }
    ambiguous |= pending.put(request.cookie, request) != null;
  }

  /** Makes a request with the errors that it may be answered with. */
  private Request request(
      int requestFlags, int type, long cookie, long offset, long length, ByteBuffer data) {
    boolean filtered = filters && type == BLOCK_STATUS && (requestFlags & PAYLOAD_LEN) != 0;
    long range = !filtered ? length : data.remaining() < 8 ? 0 : data.getLong(0);
    Set<Integer> asked = type == BLOCK_STATUS ? contexts : Set.of();
    boolean wrong = false;
    if (filtered) {
      Set<Integer> named = new HashSet<>();
      for (int at = 8; at + 4 <= data.remaining(); at += 4) {
        wrong |= !named.add(data.getInt(at));
      }
      wrong |= data.remaining() < 12 || data.remaining() % 4 != 0 || !contexts.containsAll(named);
      asked = named;
    }
    Request request = new Request(requestFlags, type, cookie, offset, range, data, asked);
    request.errors.addAll(rules.errors(requestFlags, type, offset, range));
    if (wrong) {
      request.errors.add(RawClient.EINVAL);
    }
    return request;
  }

  /** Takes the next reply or chunk; false if it is not complete. */
  private boolean takeReply() {
    if (received.length() < 16) {
      return false;
    }
    return switch (received.i32(0)) {
      case SIMPLE_REPLY -> takeSimple();
      case CHUNK -> takeChunk(20);
      case EXTENDED_CHUNK -> takeChunk(32);
      default -> throw new AssertionError("a reply begins with %x".formatted(received.i32(0)));
    };
  }

  private Request find(long cookie) {
    Request request = pending.get(cookie);
    check(request != null, "a reply to nothing that is in flight: %x", cookie);
    return request;
  }

  private boolean takeSimple() {
    int error = received.i32(4);
    Request request = find(received.i64(8));
    request.check(!extended, "a simple reply instead of an extended one");
    request.check(!chunks || request.type != READ, "a simple reply to a read");
    request.check(!request.chunked, "a simple reply after chunks");
    request.check(error != 0 || request.type != BLOCK_STATUS, "a simple reply without extents");
    request.check(error != 0 || request.maySucceed(), "success instead of %s", request.errors);
    int data = error == 0 && request.type == READ ? (int) request.length : 0;
    if (received.length() < 16 + data) {
      return false;
    }
    received.drop(16);
    request.failed = error;
    if (data > 0) {
      disk.expect((int) request.offset, received.take(data));
    }
    request.told = true;
    request.covered.set(0, data);
    finish(request);
    return true;
  }

  private boolean takeChunk(int header) {
    if (received.length() < header) {
      return false;
    }
    Request request = find(received.i64(8));
    request.check(chunks, "a chunk, which was not agreed on");
    request.check(extended == (header == 32), "a chunk of the other form");
    int chunkFlags = received.u16(4);
    int type = received.u16(6);
    request.check((chunkFlags & ~1) == 0, "chunk flags %x", chunkFlags);
    boolean done = (chunkFlags & 1) != 0;
    request.check(!extended || received.i64(16) == request.offset, "another offset");
    long length = extended ? received.i64(24) : received.u32(16);
    request.check(length >= 0 && length <= (2 << 20), "a chunk of %d bytes", length);
    if (received.length() < header + length) {
      return false;
    }
    received.drop(header);
    request.chunked = true;
    content(request, type, received.take((int) length), done);
    if (done) {
      finish(request);
    }
    return true;
  }

  private void content(Request request, int type, ByteBuffer data, boolean done) {
    int length = data.remaining();
    request.check(request.failed == 0 || type == 0, "content after an error");
    switch (type) {
      case 0 -> request.check(length == 0 && done, "an empty chunk that is not");
      case 1 -> {
        request.check(length > 8, "data without bytes");
        disk.expect(cover(request, data.getLong(), length - 8), data);
      }
      case 2 -> {
        request.check(length == 12, "a hole of %d bytes", length);
        long offset = data.getLong();
        long bytes = Integer.toUnsignedLong(data.getInt());
        request.check(bytes > 0, "a hole of nothing");
        disk.expectZeroes(cover(request, offset, bytes), (int) bytes);
      }
      case 5, 6 -> extents(request, type, data);
      case 0x8001, 0x8002 -> error(request, type, data);
      default -> request.check(false, "chunk type %x", type);
    }
    if ((request.flags & DF) != 0 && request.type == READ && type < 3) {
      request.check(type == 0 || !request.told, "two content chunks in spite of DF");
      request.told |= type != 0;
    }
  }

  private int cover(Request request, long offset, long bytes) {
    request.check(request.type == READ, "data");
    request.check(request.maySucceed(), "data instead of %s", request.errors);
    long start = offset - request.offset;
    request.check(start >= 0 && bytes <= request.length - start, "%d bytes at %d", bytes, offset);
    int next = request.covered.nextSetBit((int) start);
    request.check(next < 0 || next >= start + bytes, "data twice");
    request.covered.set((int) start, (int) (start + bytes));
    return (int) offset;
  }

  private void extents(Request request, int type, ByteBuffer data) {
    request.check(request.type == BLOCK_STATUS, "extents");
    request.check(request.maySucceed(), "extents instead of %s", request.errors);
    request.check((type == 6) == extended, "extents of the other form");
    int head = extended ? 8 : 4;
    int each = extended ? 16 : 8;
    int count = (data.remaining() - head) / each;
    request.check(count > 0 && (data.remaining() - head) % each == 0, "extents' length");
    int context = data.getInt();
    request.check(request.untold.remove(context), "extents of another context");
    boolean dirty = context == RawClient.BITMAP;
    request.check(!extended || data.getInt() == count, "the count of extents");
    boolean one = (request.flags & REQ_ONE) != 0;
    request.check(!one || count == 1, "%d extents in spite of REQ_ONE", count);
    long at = request.offset;
    long end = request.offset + request.length;
    for (int i = 0; i < count; i++) {
      long length = extended ? data.getLong() : Integer.toUnsignedLong(data.getInt());
      long status = extended ? data.getLong() : Integer.toUnsignedLong(data.getInt());
      request.check(length > 0 && length % setup.minimum() == 0, "an extent of %d", length);
      request.check(at < end, "an extent behind the range");
      request.check(!one || length <= request.length, "an extent longer than the request");
      request.check(length <= setup.size() - at, "an extent past the export's end");
      request.check((status & (dirty ? ~1 : ~3)) == 0, "an extent's status %x", status);
      if (dirty) {
        request.check(isDirty(at) == (status == 1), "the bitmap at %d", at);
        request.check(isDirty(at + length - 1) == (status == 1), "the bitmap to %d", at + length);
      } else if ((status & 2) != 0) {
        disk.expectZeroes((int) at, (int) length);
      }
      at += length;
    }
  }

  private static boolean isDirty(long offset) {
    return offset / BitmapBackend.PAGE % 3 == 0;
  }

  private void error(Request request, int type, ByteBuffer data) {
    int head = type == 0x8001 ? 6 : 14;
    request.check(data.remaining() >= head, "an error of %d bytes", data.remaining());
    request.failed = data.getInt();
    int length = Short.toUnsignedInt(data.getShort());
    request.check(request.failed != 0, "the error 0");
    request.check(length <= 4096 && data.remaining() == head - 6 + length, "the message's length");
    try {
      String text = UTF_8.newDecoder().decode(data.slice(data.position(), length)).toString();
      request.check(!text.isEmpty(), "an error without a text");
    } catch (CharacterCodingException malformed) {
      request.check(false, "a message that is not UTF-8");
    }
    if (type == 0x8002) {
      long at = data.getLong(data.limit() - 8) - request.offset;
      request.check(at >= 0 && at <= request.length, "an error at another offset");
    }
  }

  private void finish(Request request) {
    if (request.failed != 0) {
      request.check(
          request.errors.contains(request.failed),
          "error %d instead of %s",
          request.failed,
          request.errors);
    } else {
      request.check(request.maySucceed(), "success instead of %s", request.errors);
      if (request.type == READ) {
        request.check(request.covered.cardinality() == request.length, "not all of the data");
      }
      request.check(request.untold.isEmpty(), "no extents of %s", request.untold);
    }
    pending.remove(request.cookie);
    if (request.changes()) {
      apply(request);
    }
    if (pending.isEmpty()) {
      disk.quiet();
    }
  }

  private void apply(Request request) {
    int offset = (int) request.offset;
    int length = (int) request.length;
    if (request.failed != 0) {
      disk.lose(offset, length);
    } else {
      // This storage reads zeroes where it was trimmed.
      disk.end(offset, request.type == WRITE ? request.payload : ByteBuffer.allocate(length));
    }
  }

  @Override
  public boolean awaits() {
    return !abrupt && !ambiguous && !pending.isEmpty();
  }

  @Override
  public boolean owes() {
    return ending && awaits();
  }

  @Override
  public boolean mayEnd() {
    return ending;
  }

  /** Notes that unanswered requests may have changed the storage. */
  @Override
  public void leave() {
    for (Request request : pending.values()) {
      if (request.changes()) {
        disk.lose((int) request.offset, (int) request.length);
      }
    }
    if (ambiguous) {
      disk.lose(0, (int) setup.size());
    }
  }

  @Override
  public String toString() {
    return "transmission%s, in flight: %s".formatted(ending ? ", ending" : "", pending.values());
  }
}
