package nbd.client;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import nbd.protocol.BaseAllocation;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.protocol.WireInput;
import nbd.storage.Completion;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.ListedExport;
import nbd.storage.LostException;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.threads.ConnectionThreads;
import org.jspecify.annotations.Nullable;

/**
 * A connection to an export of an NBD server.
 *
 * <p>Any number of threads may call at a time; their requests are in flight together. Callers must
 * not be interrupted: interrupting a thread that sends closes the connection for all of them, as it
 * does with any channel. Ranges that are too long for one request are split.
 *
 * <p>If the server refuses a request, the call fails with an {@link NbdException} that has the
 * server's error, and the connection goes on. If the connection breaks, or the server breaks the
 * protocol or is silent for too long, every call in flight fails with a {@link LostException}
 * (EIO), and every later one with a {@link LostException} (ESHUTDOWN); both name the server and the
 * reason.
 */
public final class NbdClient extends Handle {
  /** Requests that have been begun are sent at the latest when there are so many. */
  private static final int MOST_STAGED = 32;

  /** The failure where there is no memory for another one. */
  @SuppressWarnings("StaticAssignmentOfThrowable")
  private static final LostException LOST =
      new LostException(NbdError.EIO, "the connection broke, and memory has run out", true);

  /** The failure where there is no memory for another one. */
  @SuppressWarnings("StaticAssignmentOfThrowable")
  private static final NbdException FAILED =
      new NbdException(NbdError.EIO, "a request failed, and memory has run out");

  /** Limit on the time for sending the goodbye. */
  private static final Duration GOODBYE = Duration.ofSeconds(1);

  /**
   * The connections whose replies may be read by a platform thread, which the kernel wakes before
   * any other one; while there are more, the others have virtual threads.
   */
  private static final Semaphore PLATFORM_READERS = new Semaphore(ConnectionThreads.MOST);

  private final Wire wire;
  private final Link link;
  private final SendQueue queue;
  private final ReplyReader replies;
  private final ExportInfo export;
  private final int longestPayload;
  private final long longestRange;

  /** Requests that have been begun and are not queued yet, the newest first. */
  private final AtomicReference<@Nullable Request> staged = new AtomicReference<>();

  private final AtomicBoolean closed = new AtomicBoolean();

  /**
   * Takes a connection after the handshake.
   *
   * @param name of the server, for messages
   * @param patience how long the server may be silent while a reply is due; zero for any time
   */
  NbdClient(String name, Wire wire, WireInput in, ExportInfo export, Duration patience) {
    super(export.facts());
    this.wire = wire;
    this.link = new Link(name, wire, patience);
    this.queue = new SendQueue(wire, link, export.extendedHeaders());
    this.replies = new ReplyReader(link, wire, in, export);
    this.export = export;
    this.longestPayload = export.longestPayload();
    this.longestRange =
        export.extendedHeaders() ? Long.MAX_VALUE : (1L << 32) - export.blockSizes().preferred();
  }

  /** Starts the thread that reads, and returns it. Called once, before any other call. */
  Thread start() {
    wire.splice();
    Thread reader = startReader();
    link.watch();
    return reader;
  }

  private Thread startReader() {
    String name = "replies of " + link.name();
    if (PLATFORM_READERS.tryAcquire()) {
      try {
        return Thread.ofPlatform().daemon().name(name).start(this::readOnPlatform);
      } catch (OutOfMemoryError noThread) {
        PLATFORM_READERS.release();
      }
    }
    return Thread.ofVirtual().name(name).start(replies);
  }

  private void readOnPlatform() {
    try {
      replies.run();
    } finally {
      PLATFORM_READERS.release();
    }
  }

  /**
   * Connects and opens an export.
   *
   * @param uri of the server; its export name is ignored
   * @throws nbd.protocol.OptionException if the server refuses
   * @throws IOException if the handshake fails in another way; the message names the URI
   */
  public static NbdClient connect(NbdUri uri, String exportName, ClientSettings settings)
      throws IOException {
    return connect(uri, exportName, settings, new ConnectAttempts());
  }

  /**
   * Connects, selects metadata contexts instead of base:allocation alone, and opens an export.
   *
   * @param contexts the names of those that are wanted; {@link #export} tells which the server has
   * @throws IOException as the other
   */
  public static NbdClient connect(
      NbdUri uri, String exportName, ClientSettings settings, List<String> contexts)
      throws IOException {
    return new Connector(uri.withExportName(exportName), settings, new ConnectAttempts())
        .open(contexts);
  }

  /** Connects and opens an export, in an attempt that can be ended early. */
  public static NbdClient connect(
      NbdUri uri, String exportName, ClientSettings settings, ConnectAttempts attempts)
      throws IOException {
    return new Connector(uri.withExportName(exportName), settings, attempts).open();
  }

  /**
   * Lists the exports of a server, on a connection of its own.
   *
   * @throws IOException as {@link #connect}
   */
  public static List<ListedExport> list(NbdUri uri, ClientSettings settings) throws IOException {
    return list(uri, settings, new ConnectAttempts());
  }

  /** Lists the exports of a server, in an attempt that can be ended early. */
  public static List<ListedExport> list(
      NbdUri uri, ClientSettings settings, ConnectAttempts attempts) throws IOException {
    return new Connector(uri, settings, attempts).ask(Negotiation::list);
  }

  /**
   * Lists the metadata contexts that the server has for an export, on a connection of its own.
   *
   * @throws IOException as {@link #connect}
   */
  public static List<String> listContexts(NbdUri uri, String exportName, ClientSettings settings)
      throws IOException {
    return new Connector(uri.withExportName(exportName), settings, new ConnectAttempts())
        .ask(Negotiation::listContexts);
  }

  /**
   * Asks for what {@link #export} would return, on a connection of its own that does not open the
   * export.
   *
   * @throws IOException as {@link #connect}
   */
  public static ExportInfo info(NbdUri uri, ClientSettings settings) throws IOException {
    return new Connector(uri, settings, new ConnectAttempts()).ask(Negotiation::info);
  }

  /** Returns the server's description of the export. */
  public ExportInfo export() {
    return export;
  }

  @Override
  public Optional<String> broken() {
    return Optional.ofNullable(link.broken()).map(Link.Broken::reason);
  }

  @Override
  public boolean takesPipes() {
    return wire.spliced().isPresent();
  }

  /** Shortens the time for which the server may be silent while a reply is due. */
  public void limitPatience(Duration most) {
    link.limitPatience(most);
  }

  /**
   * Performs an operation. Any thread may begin operations, and push those of all threads. The data
   * of direct buffers is not copied.
   */
  @Override
  public Outcome perform(Operation operation, Patience patience, Completion end)
      throws IOException {
    return switch (patience) {
      case AT_ONCE -> Outcome.DECLINED;
      case LATER -> stage(operation, end) ? Outcome.BEGUN : Outcome.DECLINED;
      case WAIT -> {
        perform(operation);
        yield Outcome.DONE;
      }
    };
  }

  private boolean stage(Operation operation, Completion end) {
    if (!isOneRequest(operation)) {
      return false;
    }
    Command command = operation.command();
    boolean hasData = command == Command.READ || command == Command.WRITE;
    Request request =
        new Request(
            null,
            done -> end.done(certainOutcome(done)),
            command,
            flags(operation),
            link.nextCookie(),
            operation.offset(),
            operation.length(),
            hasData && !operation.isPiped() ? operation.data().slice() : null,
            operation.isPiped() ? operation.pipe() : null,
            null);
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

  private boolean isOneRequest(Operation operation) {
    return switch (operation.command()) {
      case READ, WRITE -> operation.length() <= longestPayload;
      case FLUSH -> true;
      case BLOCK_STATUS -> false;
      default -> operation.length() > 0 && operation.length() <= longestRange;
    };
  }

  /** Returns the flags that the server gets: FUA is for commands that write. */
  private static CommandFlags flags(Operation operation) {
    return operation.command().writes() ? operation.flags() : CommandFlags.NONE;
  }

  @Override
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

  private void perform(Operation operation) throws IOException {
    Command command = operation.command();
    CommandFlags flags = flags(operation);
    long offset = operation.offset();
    long length = operation.length();
    switch (command) {
      case FLUSH -> call(command, flags, 0, 0, null, null);
      case READ, WRITE -> {
        ByteBuffer data = operation.data();
        int start = data.position();
        int end = data.limit();
        int bytes;
        for (int at = start; at < end; at += bytes) {
          bytes = Math.min(end - at, longestPayload);
          call(command, flags, offset + (at - start), bytes, data.slice(at, bytes), null);
        }
        data.position(end);
      }
      case BLOCK_STATUS -> operation.answer(extents(operation));
      default -> {
        for (long done = 0; done < length; done += longestRange) {
          long bytes = Math.min(length - done, longestRange);
          call(command, flags, offset + done, bytes, null, null);
        }
      }
    }
  }

  private List<Extent> extents(Operation question) throws IOException {
    long offset = question.offset();
    if (!export.tellsExtents()) {
      return List.of(Extent.data(question.length()));
    }
    return allocation(status(BaseAllocation.NAME, offset, question.length(), question.most()));
  }

  private static List<Extent> allocation(List<StatusExtent> extents) {
    List<Extent> allocation = new ArrayList<>();
    extents.forEach(extent -> extent.allocation().appendTo(allocation));
    return allocation;
  }

  /**
   * Asks by BLOCK_STATUS for the extents of a metadata context.
   *
   * @param context the name of one that {@link #export} tells of
   * @param length of the range, not 0
   * @param most the largest number of extents wanted, at least 1
   * @return consecutive extents, the first of which begins at the offset: at least one, each unlike
   *     the one before. They may end before the range does, or after it.
   */
  public List<StatusExtent> status(String context, long offset, long length, int most)
      throws IOException {
    Integer number = export.contexts().get(context);
    if (number == null) {
      throw new IllegalArgumentException("the context " + context + " was not selected");
    }
    long asked = Math.min(length, longestRange);
    ExtentList extents = new ExtentList(number, most, asked, size() - offset);
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
    Request request = request(command, flags, offset, length, data, extents);
    await(request);
    IOException failure = outcome(request);
    if (failure != null) {
      throw failure;
    }
  }

  private void await(Request request) throws LostException {
    String broken = link.add(request);
    if (broken != null) {
      throw new LostException(NbdError.ESHUTDOWN, broken);
    }
    queue.sendAndAwait(request);
  }

  /**
   * Sends one request as it is, also one that the server ought to refuse, and returns the answer.
   *
   * @param length without extended headers below 2^32; at most 32 MiB for a READ or WRITE
   * @param data of a READ or WRITE, with this length
   * @throws LostException if the connection breaks, also because the answer breaks the protocol
   */
  public Answer ask(
      Command command, CommandFlags flags, long offset, long length, @Nullable ByteBuffer data)
      throws LostException {
    ExtentList extents =
        command == Command.BLOCK_STATUS
            ? new ExtentList(
                export.contexts().getOrDefault(BaseAllocation.NAME, 0),
                Integer.MAX_VALUE,
                Long.MAX_VALUE,
                Long.MAX_VALUE)
            : null;
    Request request = request(command, flags, offset, length, data, extents);
    await(request);
    if (request.lost) {
      throw lost();
    }
    return new Answer(
        request.errorNumber(),
        request.message(),
        extents == null ? List.of() : allocation(extents.extents()));
  }

  private Request request(
      Command command,
      CommandFlags flags,
      long offset,
      long length,
      @Nullable ByteBuffer data,
      @Nullable ExtentList extents) {
    Thread caller = Thread.currentThread();
    long cookie = link.nextCookie();
    return new Request(caller, null, command, flags, cookie, offset, length, data, null, extents);
  }

  /** Describes the outcome of a begun request, also if memory has run out. */
  private @Nullable IOException certainOutcome(Request request) {
    try {
      return outcome(request);
    } catch (RuntimeException | Error outOfMemory) {
      return request.lost ? LOST : FAILED;
    }
  }

  /** Describes how a request failed; null if it succeeded. */
  private @Nullable IOException outcome(Request request) {
    if (request.lost) {
      return lost();
    }
    NbdError error = request.error();
    if (error == null) {
      return null;
    }
    String what = described(request, error);
    return new NbdException(error, link.name() + ": " + what, what);
  }

  private LostException lost() {
    Link.Broken broken = Objects.requireNonNull(link.broken());
    return new LostException(NbdError.EIO, broken.reason(), broken.givenUp());
  }

  private String described(Request request, NbdError error) {
    String what =
        request.command == Command.FLUSH
            ? "FLUSH"
            : "%s of %d bytes at %d".formatted(request.command, request.length, request.offset);
    String text = request.message().isEmpty() ? "" : " (" + request.message() + ")";
    return "%s failed: %s%s".formatted(what, error, text);
  }

  /**
   * Says goodbye if the connection still works, and closes it. Calls in flight fail. A server that
   * does not take the goodbye delays this by a second at most.
   */
  @Override
  public void close() {
    if (!closed.compareAndSet(false, true)) {
      return;
    }
    try {
      if (link.refuse("the connection was closed here", true)) {
        Future<?> cut = Timers.after(GOODBYE, wire::cut);
        Request goodbye = request(Command.DISC, CommandFlags.NONE, 0, 0, null, null);
        goodbye.answered();
        queue.sendAndAwait(goodbye);
        disconnect();
        cut.cancel(false);
      }
    } finally {
      wire.cut();
    }
  }

  private void disconnect() {
    try {
      wire.close();
    } catch (IOException ignored) {
      // The server may have disconnected already.
    }
  }

  /** Closes the socket without a goodbye, as a client does that crashes. Calls in flight fail. */
  public void cut() {
    if (closed.compareAndSet(false, true)) {
      link.refuse("the connection was cut here", true);
      wire.drop();
    }
  }
}
