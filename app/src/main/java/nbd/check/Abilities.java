package nbd.check;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import nbd.check.Finding.Kind;
import nbd.check.Finding.Severity;
import nbd.client.Answer;
import nbd.client.ExportInfo;
import nbd.client.NbdClient;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Extent;
import nbd.storage.LostException;
import org.jspecify.annotations.Nullable;

/**
 * An examination of an export for abilities that the server advertises and that do not work, on the
 * beginning of the target's region.
 */
final class Abilities implements AutoCloseable {
  private static final CommandFlags FUA = CommandFlags.of(CommandFlag.FUA);
  private static final CommandFlags FAST = CommandFlags.of(CommandFlag.FAST_ZERO);
  private static final CommandFlags UNDEFINED = CommandFlags.of(0x4000);

  /** A read with DF of so many bytes has to work. */
  private static final int LONGEST_WHOLE = 1 << 16;

  /** The fewest sectors of a stretch of which one is written between two others. */
  private static final int UNITS = 3;

  private static final int FAST_ROUNDS = 5;
  private static final int LONGEST_TIMED = 4 << 20;
  private static final long SLOWER_NANOS = 1_000_000;

  private final Target target;
  private final ExportInfo export;
  private final Findings findings;
  private final boolean isShared;
  private final long base;

  /** The length of a stretch that is written, trimmed or zeroed among its neighbours, in bytes. */
  private final int block;

  private final SplittableRandom random = new SplittableRandom();
  private NbdClient client;

  /**
   * Connects.
   *
   * @param servesSeveral whether the export is multi-conn, and serves more than one connection
   */
  Abilities(Target target, boolean servesSeveral, Findings findings) throws IOException {
    this.target = target;
    this.export = target.export();
    this.findings = findings;
    this.isShared = servesSeveral;
    this.base = target.offset();
    long part = target.length() / 16;
    long usual = Math.max(export.blockSizes().preferred(), 1 << 16);
    usual = Math.max(usual, (long) UNITS * target.unit());
    this.block = (int) (Math.min(part, usual) / target.unit() * target.unit());
    this.client = target.connect();
  }

  /** Examines everything; ends early if the server cannot be connected to any more. */
  void examine() {
    boolean works =
        part(Kind.SIZE, "reading up to the end", this::size)
            && part(Kind.BLOCK_SIZE, "using the block sizes", this::blockSizes)
            && part(Kind.FLUSH, "flushing", this::flush)
            && part(Kind.FUA, "writing with FUA", this::fua)
            && part(Kind.TRIM, "trimming", this::trim)
            && part(Kind.ZERO, "zeroing", this::zero)
            && part(Kind.FAST_ZERO, "zeroing with FAST_ZERO", this::fastZero)
            && part(Kind.BLOCK_STATUS, "asking for extents", this::extents)
            && part(Kind.DF, "reading with DF", this::whole);
    if (works) {
      refusals();
    }
  }

  private boolean part(Kind kind, String doing, Findings.Part part) {
    findings.of(kind, doing, part);
    return reconnect();
  }

  /** Connects again if a request cost the connection; says whether there is one. */
  private boolean reconnect() {
    if (client.broken().isEmpty()) {
      return true;
    }
    client.close();
    try {
      client = target.connect();
      return true;
    } catch (IOException gone) {
      findings.broken(
          Kind.CONNECTIONS,
          "the server cannot be connected to any more: " + findings.message(gone));
      return false;
    }
  }

  private boolean has(TransmissionFlag flag) {
    return export.has(flag);
  }

  @Override
  public void close() {
    client.close();
  }

  // Requests.

  private Answer ask(
      NbdClient on,
      Command command,
      CommandFlags flags,
      long offset,
      long length,
      @Nullable ByteBuffer data)
      throws LostException {
    Answer answer = on.ask(command, flags, offset, length, data);
    boolean defined =
        answer.error() == 0
            || Stream.of(NbdError.values()).anyMatch(error -> error.code() == answer.error());
    if (!defined) {
      findings.warning(
          Kind.ERROR_NUMBER,
          "%s is answered with error %d, which the protocol does not define"
              .formatted(command, answer.error()));
    }
    return answer;
  }

  /** Asks for what the server has to be able to do; says whether it succeeded. */
  private boolean does(
      Kind kind,
      String what,
      Command command,
      CommandFlags flags,
      long offset,
      long length,
      @Nullable ByteBuffer data)
      throws LostException {
    Answer answer = ask(client, command, flags, offset, length, data);
    if (answer.error() != 0) {
      findings.broken(kind, "%s fails: %s".formatted(what, described(answer)));
    }
    return answer.error() == 0;
  }

  private static String described(Answer answer) {
    String name = NbdError.of(answer.error()).toString();
    return answer.message().isEmpty() ? name : "%s (%s)".formatted(name, answer.message());
  }

  private void write(long offset, byte[] data) throws IOException {
    Answer answer =
        ask(client, Command.WRITE, CommandFlags.NONE, offset, data.length, ByteBuffer.wrap(data));
    require(answer, "a write of %d bytes at %d".formatted(data.length, offset));
  }

  private byte[] read(NbdClient on, long offset, int length) throws IOException {
    byte[] data = new byte[length];
    Answer answer = ask(on, Command.READ, CommandFlags.NONE, offset, length, ByteBuffer.wrap(data));
    require(answer, "a read of %d bytes at %d".formatted(length, offset));
    return data;
  }

  /** Reads in short pieces: a server may answer a long read by what it believes of its extents. */
  private byte[] readShort(NbdClient on, long offset, int length) throws IOException {
    ByteBuffer data = ByteBuffer.allocate(length);
    while (data.hasRemaining()) {
      int piece = Math.min(data.remaining(), target.unit());
      data.put(read(on, offset + data.position(), piece));
    }
    return data.array();
  }

  private static void require(Answer answer, String what) throws IOException {
    if (answer.error() != 0) {
      throw new IOException("%s failed: %s".formatted(what, described(answer)));
    }
  }

  /** Makes bytes none of which is 0. */
  private byte[] data(int length) {
    byte[] data = new byte[length];
    random.nextBytes(data);
    for (int i = 0; i < length; i++) {
      data[i] |= 1;
    }
    return data;
  }

  private static boolean isZero(byte[] data) {
    for (byte each : data) {
      if (each != 0) {
        return false;
      }
    }
    return true;
  }

  // Sizes.

  private void size() throws LostException {
    int minimum = export.blockSizes().minimum();
    long last = (export.size() / minimum - 1) * minimum;
    does(
        Kind.SIZE,
        "a read of the last %d bytes of %d".formatted(minimum, export.size()),
        Command.READ,
        CommandFlags.NONE,
        last,
        minimum,
        ByteBuffer.allocate(minimum));
  }

  private void blockSizes() throws IOException {
    BlockSizes sizes = export.blockSizes();
    smallest(sizes.minimum());
    int most = (int) Math.min(longest(), export.size() / sizes.minimum() * sizes.minimum());
    does(
        Kind.BLOCK_SIZE,
        "a read of %d bytes, which the block sizes allow,".formatted(most),
        Command.READ,
        CommandFlags.NONE,
        0,
        most,
        ByteBuffer.allocateDirect(most));
    int mostWritten = (int) Math.min(longest(), target.length());
    ByteBuffer data = ByteBuffer.allocateDirect(mostWritten);
    does(
        Kind.BLOCK_SIZE,
        "a write of %d bytes, which the block sizes allow,".formatted(mostWritten),
        Command.WRITE,
        CommandFlags.NONE,
        base,
        mostWritten,
        data);
  }

  private int longest() {
    int most = BlockSizes.DEFAULT.maximumPayload();
    return export
        .serverBlockSizes()
        .map(sizes -> (int) Math.min(sizes.maximum(), most))
        .orElse(most);
  }

  /** Writes one smallest block between two others. */
  private void smallest(int minimum) throws IOException {
    byte[] before = data(block);
    write(base, before);
    byte[] piece = data(minimum);
    boolean done =
        does(
            Kind.BLOCK_SIZE,
            "a write of the minimum block size, %d,".formatted(minimum),
            Command.WRITE,
            CommandFlags.NONE,
            base + minimum,
            minimum,
            ByteBuffer.wrap(piece));
    if (done) {
      System.arraycopy(piece, 0, before, minimum, minimum);
      if (!Arrays.equals(read(client, base, block), before)) {
        findings.broken(
            Kind.BLOCK_SIZE,
            "a write of the minimum block size, %d, at %d is not read back, or changes its neighbours"
                .formatted(minimum, base + minimum));
      }
    }
  }

  // Flush and FUA.

  private void flush() throws LostException {
    if (has(TransmissionFlag.SEND_FLUSH)) {
      does(Kind.FLUSH, "FLUSH", Command.FLUSH, CommandFlags.NONE, 0, 0, null);
    } else {
      findings.note(
          Kind.FLUSH, "flush is not advertised: clients cannot know when their data is durable");
    }
  }

  private void fua() throws IOException {
    if (!has(TransmissionFlag.SEND_FUA)) {
      return;
    }
    Answer read = ask(client, Command.READ, FUA, base, block, ByteBuffer.allocate(block));
    if (read.error() != 0) {
      findings.warning(
          Kind.FUA,
          "a read with FUA fails, though the flag is allowed on every command: " + described(read));
    }
    byte[] old = data(block);
    byte[] changed = data(block);
    write(base, old);
    if (has(TransmissionFlag.SEND_FLUSH)) {
      require(ask(client, Command.FLUSH, CommandFlags.NONE, 0, 0, null), "a flush");
    }
    if (!isShared) {
      fuaWrite(changed);
      return;
    }
    try (NbdClient other = target.connect()) {
      read(other, base, block);
      if (fuaWrite(changed) && !Arrays.equals(read(other, base, block), changed)) {
        findings.broken(
            Kind.FUA,
            "multi-conn and FUA are advertised, but another connection does not see a write with"
                + " FUA",
            "connection 2 reads %d bytes at %d".formatted(block, base),
            "connection 1 writes them with FUA, and is answered",
            "connection 2 reads them again, and gets the old data");
      }
    }
  }

  private boolean fuaWrite(byte[] data) throws LostException {
    return does(
        Kind.FUA,
        "a write with FUA, which is advertised,",
        Command.WRITE,
        FUA,
        base,
        data.length,
        ByteBuffer.wrap(data));
  }

  // Trim and zero.

  private void trim() throws IOException {
    if (has(TransmissionFlag.SEND_TRIM)) {
      change(Kind.TRIM, Command.TRIM, CommandFlags.NONE, block);
      change(Kind.TRIM, Command.TRIM, CommandFlags.NONE, target.unit());
      if (has(TransmissionFlag.SEND_FUA)) {
        change(Kind.TRIM, Command.TRIM, FUA, block);
      }
    }
  }

  private void zero() throws IOException {
    if (has(TransmissionFlag.SEND_WRITE_ZEROES)) {
      CommandFlags noHole = CommandFlags.of(CommandFlag.NO_HOLE);
      change(Kind.ZERO, Command.WRITE_ZEROES, CommandFlags.NONE, block);
      change(Kind.ZERO, Command.WRITE_ZEROES, CommandFlags.NONE, target.unit());
      change(Kind.ZERO, Command.WRITE_ZEROES, noHole, block);
      if (has(TransmissionFlag.SEND_FUA)) {
        change(Kind.ZERO, Command.WRITE_ZEROES, FUA, block);
      }
    }
  }

  /** Trims or zeroes a stretch between two others, and looks at all three. */
  private void change(Kind kind, Command command, CommandFlags flags, int length)
      throws IOException {
    byte[] before = data(length);
    byte[] after = data(length);
    long at = base + length;
    write(base, before);
    write(at, data(length));
    write(at + length, after);
    String what = "%s of %d bytes%s".formatted(command, length, named(flags));
    if (!does(kind, what + ", which is advertised,", command, flags, at, length, null)) {
      return;
    }
    boolean kept =
        Arrays.equals(read(client, base, length), before)
            && Arrays.equals(read(client, at + length, length), after);
    if (!kept) {
      findings.broken(kind, what + " changes data beside its range");
    }
    if (command == Command.WRITE_ZEROES && !isZero(read(client, at, length))) {
      findings.broken(kind, what + " leaves data that is not zero");
    }
    if (export.tellsExtents()) {
      boolean hole = trueExtents(client, at, length, what).stream().anyMatch(Extent::hole);
      if (hole && flags.has(CommandFlag.NO_HOLE)) {
        findings.note(kind, what + " makes a hole, as its extents say");
      }
    }
  }

  private static String named(CommandFlags flags) {
    List<String> names =
        Stream.of(CommandFlag.values()).filter(flags::has).map(CommandFlag::toString).toList();
    return names.isEmpty() ? "" : " with " + String.join(" and ", names);
  }

  /** Compares the time of fast zeroing with that of writing: the quickest of some each. */
  private void fastZero() throws IOException {
    if (!has(TransmissionFlag.SEND_FAST_ZERO)) {
      return;
    }
    int length = (int) Math.min(Math.min(LONGEST_TIMED, target.length()), longest());
    byte[] data = data(length);
    long writing = Long.MAX_VALUE;
    long zeroing = Long.MAX_VALUE;
    for (int round = 0; round < FAST_ROUNDS; round++) {
      long start = System.nanoTime();
      write(base, data);
      writing = Math.min(writing, System.nanoTime() - start);
      start = System.nanoTime();
      Answer answer = ask(client, Command.WRITE_ZEROES, FAST, base, length, null);
      zeroing = Math.min(zeroing, System.nanoTime() - start);
      if (answer.error() == NbdError.ENOTSUP.code()) {
        if (!Arrays.equals(read(client, base, length), data)) {
          findings.broken(
              Kind.FAST_ZERO,
              "WRITE_ZEROES with FAST_ZERO is refused with ENOTSUP, but has changed data");
        }
        return;
      }
      if (answer.error() != 0) {
        findings.broken(
            Kind.FAST_ZERO,
            "WRITE_ZEROES with FAST_ZERO, which is advertised, fails: " + described(answer));
        return;
      }
      if (!isZero(read(client, base, length))) {
        findings.broken(Kind.FAST_ZERO, "WRITE_ZEROES with FAST_ZERO leaves data that is not zero");
        return;
      }
    }
    if (zeroing > 2 * writing && zeroing - writing > SLOWER_NANOS) {
      findings.warning(
          Kind.FAST_ZERO,
          "WRITE_ZEROES with FAST_ZERO is slower than writing: %d us and %d us for %d bytes"
              .formatted(zeroing / 1000, writing / 1000, length));
    }
  }

  // Extents.

  private List<Extent> status(NbdClient on, long offset, long length) throws IOException {
    Answer answer = ask(on, Command.BLOCK_STATUS, CommandFlags.NONE, offset, length, null);
    require(answer, "BLOCK_STATUS of %d bytes at %d".formatted(length, offset));
    return answer.extents();
  }

  /**
   * Asks for the extents of a range, and compares them with its data.
   *
   * @param after the situation, for people
   */
  private List<Extent> trueExtents(NbdClient on, long offset, int length, String after)
      throws IOException {
    List<Extent> extents = status(on, offset, length);
    byte[] data = readShort(on, offset, length);
    int at = 0;
    for (Extent extent : extents) {
      if (at >= length) {
        findings.broken(
            Kind.BLOCK_STATUS,
            "BLOCK_STATUS of %d bytes is answered by an extent that begins %d bytes behind them"
                .formatted(length, at - length));
        break;
      }
      int end = at + (int) Math.min(length - at, extent.length());
      if (extent.zero() && !isZero(Arrays.copyOfRange(data, at, end))) {
        findings.broken(
            Kind.BLOCK_STATUS,
            "BLOCK_STATUS says zero where there is data: %d bytes at %d, after %s"
                .formatted(end - at, offset + at, after));
      }
      at = end;
    }
    return extents;
  }

  private void extents() throws IOException {
    if (!export.tellsExtents()) {
      return;
    }
    int length = 3 * block;
    write(base, data(length));
    if (has(TransmissionFlag.SEND_WRITE_ZEROES)) {
      require(
          ask(client, Command.WRITE_ZEROES, CommandFlags.NONE, base + block, block, null),
          "WRITE_ZEROES");
    }
    trueExtents(client, base, length, "WRITE_ZEROES");
    one();
    if (!isShared || !has(TransmissionFlag.SEND_FLUSH)) {
      write(base + block, data(block));
      trueExtents(client, base, length, "a write");
      return;
    }
    try (NbdClient other = target.connect()) {
      status(other, base, length);
      write(base + block, data(block));
      trueExtents(client, base, length, "a write");
      require(ask(client, Command.FLUSH, CommandFlags.NONE, 0, 0, null), "a flush");
      trueExtents(other, base, length, "a write and a flush on another connection");
    }
  }

  private void one() throws IOException {
    int length = 3 * block;
    CommandFlags flags = CommandFlags.of(CommandFlag.REQ_ONE);
    Answer answer = ask(client, Command.BLOCK_STATUS, flags, base, length, null);
    require(answer, "BLOCK_STATUS with REQ_ONE");
    long bytes = answer.extents().stream().mapToLong(Extent::length).sum();
    if (answer.extents().size() > 1 || bytes > length) {
      findings.warning(
          Kind.REQ_ONE,
          "BLOCK_STATUS of %d bytes with REQ_ONE is answered with %d extents of %d bytes"
              .formatted(length, answer.extents().size(), bytes));
    }
  }

  /** Reads data, zeroes and data in one piece. */
  private void whole() throws IOException {
    int piece = Math.min(block, LONGEST_WHOLE / 4 / target.unit() * target.unit());
    if (!has(TransmissionFlag.SEND_DF) || piece == 0) {
      return;
    }
    byte[] data = data(3 * piece);
    int third = data.length / 3;
    write(base, data);
    if (has(TransmissionFlag.SEND_WRITE_ZEROES)) {
      Arrays.fill(data, third, 2 * third, (byte) 0);
      require(
          ask(client, Command.WRITE_ZEROES, CommandFlags.NONE, base + third, third, null),
          "WRITE_ZEROES");
    }
    read(client, base, data.length);
    byte[] whole = new byte[data.length];
    try {
      boolean done =
          does(
              Kind.DF,
              "a read of %d bytes with DF, which is advertised,".formatted(data.length),
              Command.READ,
              CommandFlags.of(CommandFlag.DF),
              base,
              whole.length,
              ByteBuffer.wrap(whole));
      if (done && !Arrays.equals(whole, data)) {
        findings.broken(Kind.DF, "a read with DF returns other data than was written");
      }
    } catch (LostException broken) {
      findings.broken(Kind.DF, "DF is advertised, but the read fails: " + findings.message(broken));
    }
  }

  // Requests that the server has to refuse.

  private void refusals() {
    int unit = target.unit();
    long end = export.size();
    Set<NbdError> invalid = EnumSet.of(NbdError.EINVAL);
    Set<NbdError> full = EnumSet.of(NbdError.ENOSPC);
    refused(Kind.SIZE, Command.READ, CommandFlags.NONE, end, unit, invalid);
    refused(Kind.SIZE, Command.READ, CommandFlags.NONE, -unit, unit, invalid);
    if (base + target.length() == end) {
      refused(Kind.SIZE, Command.WRITE, CommandFlags.NONE, end, unit, full);
    }
    if (export.tellsExtents()) {
      refused(Kind.SIZE, Command.BLOCK_STATUS, CommandFlags.NONE, end, unit, invalid);
    }
    refused(Kind.ERROR_NUMBER, Command.READ, UNDEFINED, base, unit, invalid);
    unadvertised(TransmissionFlag.SEND_CACHE, Command.CACHE, CommandFlags.NONE);
    unadvertised(TransmissionFlag.SEND_TRIM, Command.TRIM, CommandFlags.NONE);
    unadvertised(TransmissionFlag.SEND_WRITE_ZEROES, Command.WRITE_ZEROES, CommandFlags.NONE);
    if (has(TransmissionFlag.SEND_WRITE_ZEROES)) {
      unadvertised(TransmissionFlag.SEND_FAST_ZERO, Command.WRITE_ZEROES, FAST);
    }
  }

  private void unadvertised(TransmissionFlag flag, Command command, CommandFlags flags) {
    if (!has(flag)) {
      Set<NbdError> right = EnumSet.of(NbdError.EINVAL, NbdError.ENOTSUP);
      refused(Kind.ERROR_NUMBER, command, flags, base, target.unit(), right);
    }
  }

  /** Asks for what the server has to refuse, with one of these errors, while it still answers. */
  private void refused(
      Kind kind,
      Command command,
      CommandFlags flags,
      long offset,
      int length,
      Set<NbdError> right) {
    if (client.broken().isPresent()) {
      return;
    }
    boolean beyond = kind == Kind.SIZE;
    String what =
        beyond
            ? "%s of %d bytes at %s, beyond the end,"
                .formatted(command, length, Long.toUnsignedString(offset))
            : "%s%s, which is not advertised,"
                .formatted(
                    command, flags.equals(UNDEFINED) ? " with an undefined flag" : named(flags));
    boolean carries = command == Command.READ || command == Command.WRITE;
    try {
      Answer answer =
          ask(client, command, flags, offset, length, carries ? ByteBuffer.allocate(length) : null);
      if (answer.error() == 0) {
        findings.add(beyond ? Severity.BROKEN : Severity.WARNING, kind, what + " succeeds");
      } else if (!right.contains(NbdError.of(answer.error()))) {
        findings.warning(
            Kind.ERROR_NUMBER,
            "%s is refused with %s instead of %s"
                .formatted(what, described(answer), right.iterator().next()));
      }
    } catch (LostException dropped) {
      findings.warning(
          Kind.PROTOCOL,
          "%s is not refused, but ends the connection: %s"
              .formatted(what, findings.message(dropped)));
      reconnect();
    }
  }
}
