package nbd.fuzz;

import static java.nio.charset.StandardCharsets.UTF_8;
import static nbd.fuzz.StrictClient.check;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Stream;
import nbd.fuzz.StrictClient.Over;
import nbd.fuzz.StrictClient.Phase;
import nbd.testing.RawClient;

/** The handshake as a strict client sees it, from the greeting to the export or the end. */
@SuppressWarnings("ReferenceEquality") // a phase is over when it names another one
final class StrictOptions implements Phase {
  private static final long I_HAVE_OPT = 0x49484156454f5054L;
  private static final long REPLY = 0x0003e889045565a9L;
  private static final int ACK = 1;
  private static final int SERVER = 2;
  private static final int INFO = 3;
  private static final int META = 4;
  private static final int UNSUP = 0x80000001;
  private static final int POLICY = 0x80000002;
  private static final int INVALID = 0x80000003;
  private static final int UNKNOWN = 0x80000006;
  private static final int TOO_BIG = 0x80000009;
  private static final int EXT_HEADER_REQD = 0x8000000a;

  /** Limits of this server. */
  private static final int LONGEST_ANSWERED = 4 + 4096 + 2 + 2 * 65_535;

  private static final long LONGEST_DROPPED = 32L << 20;

  private final Setup setup;
  private final Backlog sent;
  private final Backlog received;
  private final Disk disk;

  private boolean greeted;
  private boolean introduced;
  private boolean fixed;
  private boolean zeroes;
  private Agreed agreed = Agreed.SIMPLE;

  /** The numbers of the contexts that are selected, for one export. */
  private Set<Integer> selected = Set.of();

  private String selectedFor = "";
  private Optional<Expected> expected = Optional.empty();

  StrictOptions(Setup setup, Backlog sent, Backlog received, Disk disk) {
    this.setup = setup;
    this.sent = sent;
    this.received = received;
    this.disk = disk;
  }

  /** The form of replies that client and server have agreed on. */
  enum Agreed {
    SIMPLE,
    STRUCTURED,
    EXTENDED
  }

  /** A way to make the next phase, after the answer to an option. */
  private interface Then {
    Phase next();
  }

  /** The answer to an option. */
  private static final class Expected {
    final int option;

    /** The types of replies before the last one. */
    final Set<Integer> pieces = new TreeSet<>();

    final List<ByteBuffer> exact = new ArrayList<>();
    final Set<Integer> infos = new TreeSet<>();
    boolean exportTold;
    int transmissionFlags;
    final List<Integer> finals;
    boolean optional;
    Optional<Then> then = Optional.empty();

    Expected(int option, Integer... finals) {
      this.option = option;
      this.finals = List.of(finals);
    }

    /** Expects a context to be named. */
    void context(int id, String name) {
      byte[] text = name.getBytes(UTF_8);
      pieces.add(META);
      exact.add(ByteBuffer.allocate(4 + text.length).putInt(id).put(text).flip());
    }

    Expected then(Then next) {
      then = Optional.of(next);
      return this;
    }
  }

  @Override
  public Phase advance() {
    if (!greeted) {
      if (received.length() < 18) {
        return this;
      }
      check(received.i64(0) == 0x4e42444d41474943L, "the greeting's first magic");
      check(received.i64(8) == I_HAVE_OPT, "the greeting's second magic");
      check(received.u16(16) == 3, "the handshake flags");
      received.drop(18);
      greeted = true;
    }
    if (!introduced) {
      if (sent.length() < 4) {
        return this;
      }
      int flags = sent.i32(0);
      sent.drop(4);
      introduced = true;
      fixed = (flags & 1) != 0;
      zeroes = (flags & 2) == 0;
      if ((flags & ~3) != 0) {
        return over();
      }
    }
    if (expected.isEmpty()) {
      Phase next = option();
      if (next != this || expected.isEmpty()) {
        check(next != this || received.length() == 0, "an answer without a question");
        return next;
      }
    }
    return answer(expected.get());
  }

  private Phase over() {
    return new Over(received);
  }

  /** Takes the next option from the sent bytes. */
  private Phase option() {
    if (sent.length() < 16) {
      return this;
    }
    if (sent.i64(0) != I_HAVE_OPT) {
      return over();
    }
    int option = sent.i32(8);
    long length = sent.u32(12);
    if (option == 1) {
      return exportName(length);
    }
    if (!fixed || (option != 2 && length > LONGEST_DROPPED)) {
      return over();
    }
    if (sent.length() < 16 + Math.min(length, LONGEST_DROPPED)) {
      return this;
    }
    sent.drop(16);
    ByteBuffer data = sent.take((int) Math.min(length, LONGEST_DROPPED));
    Expected answer = expect(option, data);
    // A server that sees bytes behind STARTTLS has to disconnect.
    answer.optional = option == 5 && length == 0 && setup.tls() && sent.length() > 0;
    expected = Optional.of(answer);
    return this;
  }

  private Phase exportName(long length) {
    if (agreed == Agreed.EXTENDED || length > 4096) {
      return over();
    }
    if (sent.length() < 16 + length) {
      return this;
    }
    sent.drop(16);
    Optional<String> name = name(sent.take((int) length));
    if (name.isEmpty() || !Setup.NAMES.contains(name.get())) {
      return over();
    }
    return new ByName(name.get());
  }

  /** The answer to EXPORT_NAME, which has a form of its own. */
  private final class ByName implements Phase {
    private final String name;

    ByName(String name) {
      this.name = name;
    }

    @Override
    public Phase advance() {
      int length = 10 + (zeroes ? 124 : 0);
      if (received.length() < length) {
        return this;
      }
      ByteBuffer export = received.take(length);
      check(export.getLong() == setup.size(), "the export's size");
      int flags = Short.toUnsignedInt(export.getShort());
      checkFlags(flags);
      while (export.hasRemaining()) {
        check(export.get() == 0, "the zeroes are none");
      }
      return transmission(name, flags);
    }

    @Override
    public boolean awaits() {
      return true;
    }

    @Override
    public boolean mayEnd() {
      return false;
    }

    @Override
    public String toString() {
      return "EXPORT_NAME";
    }
  }

  private Phase transmission(String name, int flags) {
    return new StrictRequests(
        setup, sent, received, disk, agreed, flags, selectedFor.equals(name) ? selected : Set.of());
  }

  private void checkFlags(int flags) {
    check((flags & 1) != 0, "the transmission flags lack HAS_FLAGS");
    check((flags & 2) != 0 == setup.readOnly(), "READ_ONLY");
    check((flags & (1 << 7)) != 0 == (agreed != Agreed.SIMPLE), "SEND_DF");
    check((flags & (1 << 12)) == 0 || agreed == Agreed.EXTENDED, "BLOCK_STATUS_PAYLOAD");
    check((flags & (1 << 11)) == 0 || (flags & (1 << 6)) != 0, "FAST_ZERO without ZERO");
    check((flags & (1 << 9 | 0xe000)) == 0, "unknown flags");
    check(!setup.readOnly() || (flags & (1 << 5 | 1 << 6)) == 0, "writing, read-only");
  }

  private Expected expect(int option, ByteBuffer data) {
    int length = data.remaining();
    if (option == 2) {
      return new Expected(option, ACK).then(this::over);
    }
    if (option == 5) {
      if (length > 0) {
        return new Expected(option, INVALID);
      }
      return setup.tls()
          ? new Expected(option, ACK).then(() -> new TlsRecords(received))
          : new Expected(option, POLICY, UNSUP);
    }
    if (length > LONGEST_ANSWERED) {
      return new Expected(option, TOO_BIG, INVALID, UNSUP);
    }
    return switch (option) {
      case 3 -> list(length);
      case 6, 7 -> info(option, data);
      case 8 -> {
        if (length > 0) {
          yield new Expected(option, INVALID);
        }
        if (agreed == Agreed.EXTENDED) {
          yield new Expected(option, EXT_HEADER_REQD);
        }
        agreed = Agreed.STRUCTURED;
        yield new Expected(option, ACK);
      }
      case 9, 10 -> contexts(option, data);
      case 11 -> {
        if (length > 0) {
          yield new Expected(option, INVALID);
        }
        agreed = Agreed.EXTENDED;
        yield new Expected(option, ACK);
      }
      default -> new Expected(option, UNSUP);
    };
  }

  private Expected list(int length) {
    if (length > 0) {
      return new Expected(3, INVALID);
    }
    Expected list = new Expected(3, ACK);
    list.pieces.add(SERVER);
    for (String name : Setup.NAMES) {
      byte[] bytes = (name + Setup.DESCRIPTION).getBytes(UTF_8);
      list.exact.add(ByteBuffer.allocate(4 + bytes.length).putInt(name.length()).put(bytes).flip());
    }
    return list;
  }

  private Expected info(int option, ByteBuffer data) {
    int length = data.remaining();
    if (length < 6) {
      return new Expected(option, INVALID);
    }
    long nameLength = Integer.toUnsignedLong(data.getInt());
    if (nameLength > length - 6) {
      return new Expected(option, INVALID);
    }
    Optional<String> name = name(part(data, (int) nameLength));
    int count = Short.toUnsignedInt(data.getShort());
    if (name.isEmpty() || data.remaining() != 2 * count) {
      return new Expected(option, INVALID);
    }
    if (!Setup.NAMES.contains(name.get())) {
      return new Expected(option, UNKNOWN);
    }
    Expected info = new Expected(option, ACK);
    info.pieces.add(INFO);
    info.infos.add(0);
    while (data.hasRemaining()) {
      info.infos.add(Short.toUnsignedInt(data.getShort()));
    }
    info.infos.removeIf(type -> type > 3);
    return info.then(
        () -> {
          check(info.exportTold, "size and flags were not told");
          check(info.infos.isEmpty(), "not told: %s", info.infos);
          return option == 7 ? transmission(name.get(), info.transmissionFlags) : this;
        });
  }

  private Expected contexts(int option, ByteBuffer data) {
    boolean select = option == 10;
    if (select) {
      selected = Set.of();
    }
    if (agreed == Agreed.SIMPLE) {
      return new Expected(option, INVALID);
    }
    Expected malformed = new Expected(option, INVALID, TOO_BIG);
    if (data.remaining() < 8) {
      return malformed;
    }
    long nameLength = Integer.toUnsignedLong(data.getInt());
    if (nameLength > data.remaining() - 4) {
      return malformed;
    }
    Optional<String> name = name(part(data, (int) nameLength));
    if (name.isEmpty()) {
      return malformed;
    }
    long count = Integer.toUnsignedLong(data.getInt());
    List<ByteBuffer> queries = new ArrayList<>();
    for (long i = 0; i < count; i++) {
      if (data.remaining() < 4) {
        return malformed;
      }
      long length = Integer.toUnsignedLong(data.getInt());
      if (length > data.remaining() || length > 4096) {
        return malformed;
      }
      queries.add(part(data, (int) length));
    }
    if (data.hasRemaining()) {
      return malformed;
    }
    if (!Setup.NAMES.contains(name.get())) {
      return new Expected(option, UNKNOWN);
    }
    Expected contexts = new Expected(option, ACK);
    Set<Integer> matched = new HashSet<>();
    if (matches(queries, select, "base:allocation", "base:")) {
      contexts.context(select ? RawClient.CONTEXT : 0, "base:allocation");
      matched.add(RawClient.CONTEXT);
    }
    String bitmap = "qemu:dirty-bitmap:" + setup.bitmapOf(name.get());
    if (setup.bitmap() && matches(queries, select, bitmap, "qemu:", "qemu:dirty-bitmap:")) {
      contexts.context(select ? RawClient.BITMAP : 0, bitmap);
      matched.add(RawClient.BITMAP);
    }
    if (select) {
      selected = matched;
      selectedFor = name.get();
    }
    return contexts;
  }

  private static boolean matches(
      List<ByteBuffer> queries, boolean select, String name, String... wildcards) {
    boolean listed =
        queries.isEmpty()
            || Stream.of(wildcards).anyMatch(wildcard -> queries.contains(UTF_8.encode(wildcard)));
    return queries.contains(UTF_8.encode(name)) || (!select && listed);
  }

  private static ByteBuffer part(ByteBuffer data, int length) {
    byte[] part = new byte[length];
    data.get(part);
    return ByteBuffer.wrap(part);
  }

  private static Optional<String> name(ByteBuffer bytes) {
    if (bytes.remaining() > 4096) {
      return Optional.empty();
    }
    try {
      String name = UTF_8.newDecoder().decode(bytes).toString();
      return name.contains("\0") ? Optional.empty() : Optional.of(name);
    } catch (CharacterCodingException malformed) {
      return Optional.empty();
    }
  }

  private Phase answer(Expected answer) {
    while (received.length() >= 20) {
      check(received.i64(0) == REPLY, "the reply's magic");
      check(received.i32(8) == answer.option, "a reply to option %d", received.i32(8));
      int type = received.i32(12);
      long length = received.u32(16);
      check(length <= 1 << 13, "a reply of %d bytes", length);
      if (received.length() < 20 + length) {
        return this;
      }
      received.drop(20);
      ByteBuffer data = received.take((int) length);
      if (answer.pieces.contains(type)) {
        piece(answer, type, data);
        continue;
      }
      check(
          answer.finals.contains(type),
          "option %d is answered by %x instead of %s: %s",
          answer.option,
          type,
          answer.finals,
          UTF_8.decode(data.duplicate()));
      check(type != ACK || length == 0, "an ACK with data");
      check(answer.exact.isEmpty(), "%d pieces are missing", answer.exact.size());
      check(type < 0 == UTF_8.decode(data).length() > 0, "an error without a text");
      expected = Optional.empty();
      Phase next = answer.then.isPresent() ? answer.then.get().next() : this;
      return next == this ? advance() : next;
    }
    return this;
  }

  private void piece(Expected answer, int type, ByteBuffer data) {
    if (type != INFO) {
      check(!answer.exact.isEmpty(), "a piece too many");
      ByteBuffer exact = answer.exact.removeFirst();
      check(exact.equals(data), "another piece of %d bytes", data.remaining());
      return;
    }
    check(data.remaining() >= 2, "a piece of information without a type");
    int kind = Short.toUnsignedInt(data.getShort());
    check(answer.infos.remove(kind), "information %d was not asked for, or came before", kind);
    switch (kind) {
      case 0 -> {
        check(data.remaining() == 10, "size and flags");
        check(data.getLong() == setup.size(), "the export's size");
        answer.transmissionFlags = Short.toUnsignedInt(data.getShort());
        checkFlags(answer.transmissionFlags);
        answer.exportTold = true;
      }
      case 1 -> check(Setup.NAMES.contains(UTF_8.decode(data).toString()), "a name");
      case 2 -> check(UTF_8.decode(data).toString().equals(Setup.DESCRIPTION), "a description");
      default -> {
        check(data.remaining() == 12, "block sizes");
        check(data.getInt() == setup.minimum(), "the minimum block size");
        check(Integer.bitCount(data.getInt()) == 1, "the preferred block size");
        check(data.getInt() == Setup.MAXIMUM_PAYLOAD, "the maximum payload");
      }
    }
  }

  @Override
  public boolean awaits() {
    return !greeted || expected.filter(answer -> !answer.optional).isPresent();
  }

  @Override
  public boolean mayEnd() {
    return expected.filter(answer -> answer.optional).isPresent();
  }

  @Override
  public String toString() {
    return expected.map(answer -> "option " + answer.option).orElse("between options");
  }

  /** TLS records after STARTTLS, which the client does not decrypt. */
  private static final class TlsRecords implements Phase {
    private final Backlog received;

    TlsRecords(Backlog received) {
      this.received = received;
    }

    @Override
    public Phase advance() {
      while (received.length() >= 5) {
        int type = received.u16(0) >> 8;
        int length = received.u16(3);
        check(type >= 20 && type <= 23, "a TLS record of type %d", type);
        check((received.u16(1) >> 8) == 3, "a TLS record's version");
        check(length <= (1 << 14) + 2048, "a TLS record of %d bytes", length);
        if (received.length() < 5 + length) {
          break;
        }
        received.drop(5 + length);
      }
      return this;
    }

    @Override
    public boolean awaits() {
      return false;
    }

    @Override
    public boolean mayEnd() {
      return true;
    }

    @Override
    public String toString() {
      return "inside TLS";
    }
  }
}
