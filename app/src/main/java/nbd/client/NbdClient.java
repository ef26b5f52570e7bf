package nbd.client;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Completion;
import nbd.storage.Extent;
import nbd.storage.ListedExport;
import nbd.storage.LostException;
import org.jspecify.annotations.Nullable;

/**
 * One connection to an export of an NBD server.
 *
 * <p>Every call may be made by any number of threads at a time, and returns when the server has
 * answered; what different threads ask for is in flight together. A buffer belongs to the
 * connection during the call only. Callers must not be interrupted: a thread that is interrupted
 * while it sends closes the connection for all, as channels have it. Offsets and lengths are in
 * bytes; the caller keeps ranges inside the export, aligned to its minimum block size, and asks for
 * nothing that its flags lack. What is too long for one request is split.
 *
 * <p>What the server refuses is an {@link NbdException} with the server's error, and the connection
 * goes on. When the connection breaks, or the server breaks the protocol or is silent for too long,
 * every call in flight fails with a {@link LostException} (EIO), and every later one with a {@link
 * LostException} (ESHUTDOWN); both name the server and the reason.
 */
public final class NbdClient implements AutoCloseable {
  /** So many leave by one call. */
  private static final int MOST_STAGED = 32;

  /** Made while there is memory. */
  @SuppressWarnings("StaticAssignmentOfThrowable")
  private static final LostException LOST =
      new LostException(NbdError.EIO, "the connection broke, and memory was short", true);

  /** Made while there is memory. */
  @SuppressWarnings("StaticAssignmentOfThrowable")
  private static final NbdException FAILED =
      new NbdException(NbdError.EIO, "a request failed, and memory was short");

  private static final Duration FAREWELL = Duration.ofSeconds(1);

  private final Wire wire;
  private final Link link;
  private final SendQueue queue;
  private final ExportInfo export;
  private final int longestPayload;
  private final long longestRange;

  /** What was begun and is not queued yet, the newest first; any thread may begin or push. */
  private final AtomicReference<@Nullable Request> staged = new AtomicReference<>();

  private final AtomicBoolean closed = new AtomicBoolean();

  NbdClient(Wire wire, Link link, SendQueue queue, ExportInfo export) {
    this.wire = wire;
    this.link = link;
    this.queue = queue;
    this.export = export;
    this.longestPayload = export.longestPayload();
    this.longestRange =
        export.extendedHeaders() ? Long.MAX_VALUE : (1L << 32) - export.blockSizes().preferred();
  }

  /**
   * Connects and opens an export.
   *
   * @param uri of the server; its export name does not matter
   * @throws nbd.protocol.OptionException if the server refuses, with its reason
   * @throws IOException if there is no server, or no way to agree; the message names the URI
   */
  public static NbdClient connect(NbdUri uri, String exportName, ClientSettings settings)
      throws IOException {
    return connect(uri, exportName, settings, new ConnectAttempts());
  }

  /** The same, as one of these attempts, which can be ended early. */
  public static NbdClient connect(
      NbdUri uri, String exportName, ClientSettings settings, ConnectAttempts attempts)
      throws IOException {
    return new Connector(uri.withExportName(exportName), settings, attempts).open();
  }

  /**
   * Names the exports of a server, on a connection of its own.
   *
   * @throws nbd.protocol.OptionException if the server is not willing to tell
   * @throws IOException as {@link #connect}
   */
  public static List<ListedExport> list(NbdUri uri, ClientSettings settings) throws IOException {
    return list(uri, settings, new ConnectAttempts());
  }

  /** The same, as one of these attempts, which can be ended early. */
  public static List<ListedExport> list(
      NbdUri uri, ClientSettings settings, ConnectAttempts attempts) throws IOException {
    return new Connector(uri, settings, attempts).ask(Negotiation::list);
  }

  /**
   * Names the metadata contexts that the server has for an export, on a connection of its own.
   *
   * @throws IOException as {@link #connect}
   */
  public static List<String> listContexts(NbdUri uri, String exportName, ClientSettings settings)
      throws IOException {
    return new Connector(uri.withExportName(exportName), settings, new ConnectAttempts())
        .ask(negotiation -> negotiation.listContexts(exportName));
  }

  /** What the server says of the export. */
  public ExportInfo export() {
    return export;
  }

  /** Why every call fails from now on; empty while the connection works, as far as is known. */
  public Optional<String> broken() {
    return Optional.ofNullable(link.broken()).map(Link.Broken::reason);
  }

  /**
   * Reads.
   *
   * @param into filled from its position to its limit; a direct buffer straight from the socket
   * @throws IOException if not all of it could be read; what is in the buffer then is undefined,
   *     and its position is where it was
   */
  public void read(ByteBuffer into, long offset) throws IOException {
    int start = into.position();
    int end = into.limit();
    int bytes;
    for (int from = start; from < end; from += bytes) {
      bytes = Math.min(end - from, longestPayload);
      long at = offset + (from - start);
      call(Command.READ, CommandFlags.NONE, at, bytes, into.slice(from, bytes), null);
    }
    into.position(end);
  }

  /**
   * Writes.
   *
   * @param from written from its position to its limit, without a copy if it is direct
   * @throws IOException if not all of it could be written; the position is where it was
   */
  public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
    int start = from.position();
    int end = from.limit();
    int bytes;
    for (int at = start; at < end; at += bytes) {
      bytes = Math.min(end - at, longestPayload);
      call(Command.WRITE, flags, offset + (at - start), bytes, from.slice(at, bytes), null);
    }
    from.position(end);
  }

  /**
   * Begins a read as {@link nbd.storage.Handle#beginRead} has it. Any thread may begin and push;
   * who pushes sends what others have begun as well.
   */
  public boolean beginRead(ByteBuffer into, long offset, Completion end) {
    return begin(Command.READ, CommandFlags.NONE, into, offset, end);
  }

  /** Begins a write; the rest as {@link #beginRead}. */
  public boolean beginWrite(ByteBuffer from, long offset, CommandFlags flags, Completion end) {
    return begin(Command.WRITE, flags, from, offset, end);
  }

  private boolean begin(
      Command command, CommandFlags flags, ByteBuffer data, long offset, Completion end) {
    if (data.remaining() > longestPayload) {
      return false;
    }
    Request request =
        Request.begun(
            done -> end.done(certainOutcome(done)),
            command,
            flags.bits(),
            link.nextCookie(),
            offset,
            data.slice());
    if (link.add(request) != null) {
      return false;
    }
    Request before;
    do {
      before = staged.get();
      request.stagedAfter(before);
    } while (!staged.compareAndSet(before, request));
    if (request.stagedCount() >= MOST_STAGED) {
      push();
    }
    return true;
  }

  /** Sends what was begun. */
  public void push() {
    Request newest = staged.getAndSet(null);
    if (newest != null) {
      Request oldest = newest;
      while (oldest.next != null) {
        oldest = oldest.next;
      }
      queue.sendAll(newest, oldest);
    }
  }

  /** From now on the server may be silent for no longer than this while it owes an answer. */
  public void limitPatience(Duration most) {
    link.limitPatience(most);
  }

  /** Makes durable what was answered before. */
  public void flush() throws IOException {
    call(Command.FLUSH, CommandFlags.NONE, 0, 0, null, null);
  }

  /** Forgets a range. */
  public void trim(long offset, long length, CommandFlags flags) throws IOException {
    ranges(Command.TRIM, offset, length, flags);
  }

  /** Makes a range read as zeroes. */
  public void zero(long offset, long length, CommandFlags flags) throws IOException {
    ranges(Command.WRITE_ZEROES, offset, length, flags);
  }

  /** Reads a range ahead. */
  public void cache(long offset, long length) throws IOException {
    ranges(Command.CACHE, offset, length, CommandFlags.NONE);
  }

  private void ranges(Command command, long offset, long length, CommandFlags flags)
      throws IOException {
    for (long done = 0; done < length; ) {
      long bytes = Math.min(length - done, longestRange);
      call(command, flags, offset + done, bytes, null, null);
      done += bytes;
    }
  }

  /**
   * Says where data is and where holes and zeroes are; that there may be data everywhere, if the
   * server does not tell.
   *
   * @param most how many extents are wanted at most, at least 1
   * @return consecutive extents as {@link nbd.storage.Handle#extents} promises them
   */
  public List<Extent> extents(long offset, long length, int most) throws IOException {
    if (!export.tellsExtents()) {
      return List.of(Extent.data(length));
    }
    long asked = Math.min(length, longestRange);
    ExtentList extents = new ExtentList(most, asked, export.size() - offset);
    CommandFlags flags = most == 1 ? CommandFlags.of(CommandFlag.REQ_ONE) : CommandFlags.NONE;
    call(Command.BLOCK_STATUS, flags, offset, asked, null, extents);
    return extents.extents();
  }

  private void call(
      Command command,
      CommandFlags flags,
      long offset,
      long length,
      @Nullable ByteBuffer data,
      @Nullable ExtentList extents)
      throws IOException {
    Request request =
        new Request(command, flags.bits(), link.nextCookie(), offset, length, data, extents);
    String broken = link.add(request);
    if (broken != null) {
      throw new LostException(NbdError.ESHUTDOWN, broken);
    }
    queue.send(request);
    while (!request.await()) {
      queue.lead(request);
    }
    IOException failure = outcome(request);
    if (failure != null) {
      throw failure;
    }
  }

  /** Of a begun request, which has an outcome also where there is no memory to describe it. */
  private @Nullable IOException certainOutcome(Request request) {
    try {
      return outcome(request);
    } catch (RuntimeException | Error outOfMemory) {
      return request.isLost() ? LOST : FAILED;
    }
  }

  /** How a request that is done failed; null if it succeeded. */
  private @Nullable IOException outcome(Request request) {
    if (request.isLost()) {
      Link.Broken broken = Objects.requireNonNull(link.broken());
      return new LostException(NbdError.EIO, broken.reason(), broken.givenUp());
    }
    NbdError error = request.error();
    if (error == null) {
      return null;
    }
    String what = described(request, error);
    return new NbdException(error, link.name() + ": " + what, what);
  }

  private String described(Request request, NbdError error) {
    String what =
        request.command() == Command.FLUSH
            ? "FLUSH"
            : "%s of %d bytes at %d"
                .formatted(request.command(), request.length(), request.offset());
    String text = request.message().isEmpty() ? "" : " (" + request.message() + ")";
    return "%s failed: %s%s".formatted(what, error, text);
  }

  /**
   * Says goodbye if the connection still works, and ends it. Calls that are in flight fail. Never
   * waits for long: a server that does not even take the goodbye is left without it.
   */
  @Override
  public void close() {
    if (!closed.compareAndSet(false, true)) {
      return;
    }
    try {
      if (link.refuse("the connection was closed here", true)) {
        Future<?> cut = Timers.after(FAREWELL, wire::cut);
        Request goodbye = new Request(Command.DISC, 0, link.nextCookie(), 0, 0, null, null);
        goodbye.answered();
        queue.send(goodbye);
        while (!goodbye.await()) {
          queue.lead(goodbye);
        }
        endTls();
        cut.cancel(false);
      }
    } finally {
      wire.cut();
    }
  }

  private void endTls() {
    try {
      wire.close();
    } catch (IOException ignored) {
      // The server may have gone at once.
    }
  }
}
