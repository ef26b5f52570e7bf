package nbd.rbd;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.temporal.ChronoUnit;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReplyType;
import nbd.rbd.RbdSettings.Handles;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.DirectMemory;
import nbd.storage.ExportFacts;
import nbd.storage.LostException;
import nbd.storage.Operation;
import nbd.threads.BlockingCalls;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * An opening of an image or a snapshot. Any thread may begin an operation, which never waits; the
 * other methods wait for the cluster, and are called by platform threads.
 *
 * <p>librbd gives an operation up when one of its messages to the cluster has not been answered
 * within a third of the user's limit ({@link #attempt}); it may send two, one after the other, of
 * which the first is for the image's object map. An operation that was given up begins again if it
 * must then end within the limit. An attempt that was given up may be carried out late, but the
 * cluster carries out one client's requests for an object in their order; so it does not overwrite
 * what the same client writes afterwards.
 */
final class Image {
  private static final int MOST_OPTIONS = 512;
  private static final int OPTION_BYTES = 24;
  private static final int MOST_OWNERS = 8;
  private static final int INFO_BYTES = 256;
  private static final int OBJECT_SIZE = 8;

  private static final long OBJECT_MAP = 8;

  /** Limit on the objects that one question for extents is about: each costs a message. */
  private static final int MOST_OBJECTS = 64;

  /** The time by which the library may notice late that an attempt is over. */
  private static final Duration SLACK = Duration.ofMillis(500);

  private static final String POLICY = "rbd_cache_policy";
  private static final String PERSISTENT = "rbd_persistent_cache_mode";

  private final Cluster cluster;
  private final LibRbd lib;
  private final RbdName name;
  private final RbdSettings settings;
  private final BlockingCalls blocking;
  private final long image;
  private final boolean writes;
  private final long objectSize;
  private final int mostMessages;
  private final long watcher;
  private final long watch;

  /** The last size that was seen; the monitor is held where it changes. */
  private volatile long knownSize;

  /** Guarded by the monitor. */
  private boolean closed;

  private volatile @Nullable String lost;
  private volatile boolean isStopping;

  private Image(
      Cluster cluster,
      RbdName name,
      boolean readOnly,
      RbdSettings settings,
      BlockingCalls blocking,
      long image)
      throws IOException {
    this.cluster = cluster;
    this.lib = cluster.lib;
    this.name = name;
    this.settings = settings;
    this.blocking = blocking;
    this.image = image;
    this.writes = !readOnly && name.snapshot().isEmpty();
    checkOptions();
    long features = number("its features", lib.features);
    this.mostMessages = (features & OBJECT_MAP) == 0 ? 1 : 2;
    if (writes && (features & LibRbd.EXCLUSIVE_LOCK) != 0) {
      lookAtLock();
    }
    this.objectSize = objectSize();
    if (name.since().isPresent()) {
      checkOlder(name.since().get());
    }
    this.watcher = cluster.completions.watch(this::lookAtSizeLater);
    boolean made = false;
    try {
      this.watch = watch();
      this.knownSize = number("its size", lib.size);
      made = true;
    } finally {
      if (!made) {
        cluster.completions.unwatch(watcher);
      }
    }
  }

  /**
   * Opens an image.
   *
   * @throws OptionException if there is no such image or snapshot
   * @throws IOException with a message for the user if it cannot be opened
   */
  static Image open(
      Cluster cluster, RbdName name, boolean readOnly, RbdSettings settings, BlockingCalls blocking)
      throws IOException {
    long image = open(cluster, name, readOnly);
    boolean opened = false;
    try {
      Image made = new Image(cluster, name, readOnly, settings, blocking, image);
      opened = true;
      return made;
    } finally {
      if (!opened) {
        LibRbd.call(_ -> (int) cluster.lib.close.invokeExact(image));
      }
    }
  }

  private static long open(Cluster cluster, RbdName name, boolean readOnly) throws IOException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment made = arena.allocate(ADDRESS);
      MemorySegment image = arena.allocateFrom(name.image().orElseThrow());
      MemorySegment snapshot = name.snapshot().map(arena::allocateFrom).orElse(MemorySegment.NULL);
      long io = cluster.ioContext();
      int result =
          LibRbd.call(
              _ ->
                  readOnly || name.snapshot().isPresent()
                      ? (int) cluster.lib.openReadOnly.invokeExact(io, image, made, snapshot)
                      : (int) cluster.lib.open.invokeExact(io, image, made, snapshot));
      switch (-result) {
        case RbdException.ENOENT ->
            throw new OptionException(
                OptionReplyType.ERR_UNKNOWN,
                name + " does not exist",
                "there is no such image or snapshot",
                null);
        case RbdException.ESHUTDOWN -> {
          cluster.shutOut();
          throw new RbdException(name.toString(), -result);
        }
        default -> {}
      }
      if (result < 0) {
        throw new RbdException(name.toString(), -result);
      }
      return made.get(JAVA_LONG, 0);
    }
  }

  /** Refuses settings of the image or its pool with which a flush would not keep its promise. */
  private void checkOptions() throws IOException {
    Map<String, String> options = options();
    if (isOn(options.get("rbd_cache")) && "writearound".equals(options.get(POLICY))) {
      throw new IOException(
          name
              + ": "
              + POLICY
              + " is set to writearound for this image or its pool; then librbd may answer a flush"
              + " although a write before it has failed: set writeback or writethrough there");
    }
    String persistent = options.getOrDefault(PERSISTENT, "disabled");
    if (settings.handles() == Handles.CONNECTION && !persistent.equals("disabled")) {
      throw new IOException(
          "%s has a persistent cache (%s=%s), which --rbd-handle=connection would empty without"
                  .formatted(name, PERSISTENT, persistent)
              + " writing it to the cluster; use --rbd-handle=shared");
    }
  }

  private static boolean isOn(@Nullable String value) {
    return "true".equals(value) || "1".equals(value);
  }

  /** Returns the options that are in force for the image: its own, its pool's, the client's. */
  private Map<String, String> options() throws IOException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment options = arena.allocate((long) MOST_OPTIONS * OPTION_BYTES, 8);
      MemorySegment count = arena.allocateFrom(JAVA_INT, MOST_OPTIONS);
      checked("its options", _ -> (int) lib.options.invokeExact(image, options, count));
      Map<String, String> found = new HashMap<>();
      for (int i = 0; i < count.get(JAVA_INT, 0); i++) {
        MemorySegment option = options.asSlice((long) i * OPTION_BYTES, OPTION_BYTES);
        found.put(
            LibRbd.string(option.get(ADDRESS, 0)),
            LibRbd.string(option.get(ADDRESS, ADDRESS.byteSize())));
      }
      LibRbd.call(
          _ -> {
            lib.optionsFree.invokeExact(options, count.get(JAVA_INT, 0));
            return 0;
          });
      return found;
    }
  }

  private void checkOlder(String snapshot) throws IOException {
    int result = differences(Operation.dirty(0, 1, 1), 1).result;
    switch (-result) {
      case RbdException.ENOENT ->
          throw new OptionException(
              OptionReplyType.ERR_UNKNOWN,
              "%s: there is no snapshot %s to compare with".formatted(name, snapshot),
              "there is no such snapshot to compare with",
              null);
      case RbdException.EINVAL ->
          throw new OptionException(
              OptionReplyType.ERR_UNKNOWN,
              "%s: the snapshot %s is not older".formatted(name, snapshot),
              "the snapshot to compare with is not older",
              null);
      default -> succeeded("what has changed", result);
    }
  }

  /** Asks for a number about the image. */
  private long number(String what, MethodHandle function) throws IOException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment number = arena.allocate(JAVA_LONG);
      checked(what, _ -> (int) function.invokeExact(image, number));
      return number.get(JAVA_LONG, 0);
    }
  }

  /** Takes the lock that another client has, or says what it means. */
  private void lookAtLock() throws IOException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment mode = arena.allocate(JAVA_INT);
      MemorySegment owners = arena.allocate(ADDRESS, MOST_OWNERS);
      MemorySegment count = arena.allocateFrom(JAVA_LONG, MOST_OWNERS);
      int result = LibRbd.call(_ -> (int) lib.lockOwners.invokeExact(image, mode, owners, count));
      if (result == -RbdException.ENOENT) {
        return; // nobody has it
      }
      succeeded("its lock", result);
      String[] found = LibRbd.strings(owners, (int) count.get(JAVA_LONG, 0));
      LibRbd.call(
          _ -> {
            lib.lockOwnersFree.invokeExact(owners, count.get(JAVA_LONG, 0));
            return 0;
          });
      for (String owner : found) {
        if (!cluster.isOwn(owner)) {
          lookAtOwner(owner);
        }
      }
    }
  }

  private void lookAtOwner(String owner) throws IOException {
    if (settings.breaksLocks()) {
      int result =
          LibRbd.call(
              arena -> (int) lib.lockBreak.invokeExact(image, 0, arena.allocateFrom(owner)));
      if (result == -RbdException.ENOENT) {
        return; // its owner has given it up
      }
      succeeded("breaking the lock of " + owner, result);
      Logger.warn("{}: took the lock from {}, which the cluster shuts out", name, owner);
    } else {
      Logger.warn(
          "{} is locked by {}: the first write waits until that client gives the lock up, or 30 s"
              + " if it is dead; --rbd-break-lock takes the lock at once",
          name,
          owner);
    }
  }

  private long objectSize() throws IOException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment info = arena.allocate(INFO_BYTES, 8);
      checked("its size", _ -> (int) lib.stat.invokeExact(image, info, (long) INFO_BYTES));
      return info.get(JAVA_LONG, OBJECT_SIZE);
    }
  }

  private long watch() throws IOException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment made = arena.allocate(JAVA_LONG);
      MemorySegment onUpdate = cluster.completions.onUpdate();
      checked("watching it", _ -> (int) lib.watch.invokeExact(image, made, onUpdate, watcher));
      return made.get(JAVA_LONG, 0);
    }
  }

  private void lookAtSizeLater() {
    blocking.threads().execute(this::lookAtSize);
  }

  private synchronized void lookAtSize() {
    try {
      if (!closed) {
        long _ = seenSize();
      }
    } catch (IOException failure) {
      Logger.warn("the size of an image that has changed is unknown: {}", failure.getMessage());
    }
  }

  /** Returns the size, and logs it if it has changed. */
  private synchronized long seenSize() throws IOException {
    long size = number("its size", lib.size);
    if (size != knownSize) {
      Logger.info(
          "{} has {} bytes now instead of {}; connections that are made from now on see it",
          name,
          size,
          knownSize);
      knownSize = size;
    }
    return size;
  }

  private void checked(String what, LibRbd.Call call) throws IOException {
    succeeded(what, LibRbd.call(call));
  }

  private void succeeded(String what, int result) throws IOException {
    if (result == -RbdException.ESHUTDOWN) {
      throw fenced();
    }
    if (result < 0) {
      throw new RbdException(name + ": " + what, -result);
    }
  }

  /** Returns the limit on the time of a message, of which Ceph takes whole seconds. */
  static Duration attempt(Duration timeout) {
    return timeout.dividedBy(3).truncatedTo(ChronoUnit.SECONDS);
  }

  /**
   * Says whether a call has time for another attempt.
   *
   * @param began when it was first made, by System.nanoTime
   * @param messages that an attempt may send one after the other
   */
  private boolean mayRepeat(int result, long began, int messages) {
    Duration end =
        Duration.ofNanos(System.nanoTime() - began)
            .plus(attempt(settings.timeout()).multipliedBy(messages));
    return result == -RbdException.ETIMEDOUT
        && !isStopping
        && end.minus(SLACK).compareTo(settings.timeout()) < 0;
  }

  /** Describes the image as it is now. */
  ExportFacts facts() throws IOException {
    int preferred = Math.clamp(objectSize, 4096, BlockSizes.DEFAULT.maximumPayload());
    Capabilities capabilities =
        Capabilities.of(
            Capability.WRITE,
            Capability.FLUSH,
            Capability.FUA,
            Capability.TRIM,
            Capability.ZERO,
            Capability.FAST_ZERO,
            Capability.EXTENTS);
    if (settings.handles() == Handles.SHARED) {
      capabilities = capabilities.with(Capability.MULTI_CONN);
    }
    ExportFacts facts =
        new ExportFacts(
            seenSize(),
            new BlockSizes(1, preferred, BlockSizes.DEFAULT.maximumPayload()),
            writes ? capabilities : capabilities.readOnly(),
            "",
            settings.handles() == Handles.SHARED ? this : cluster);
    return name.since().map(older -> facts.withDirtyBitmap("since-" + older)).orElse(facts);
  }

  /** Returns why the image is lost; empty while it is not. */
  Optional<String> lost() {
    return Optional.ofNullable(lost);
  }

  /** Gives up operations that would begin again. */
  void stopWaiting() {
    isStopping = true;
  }

  /** Begins an operation other than BLOCK_STATUS. */
  void begin(Operation operation, Completion end) {
    CommandFlags flags = operation.flags();
    if (flags.has(CommandFlag.FAST_ZERO) && flags.has(CommandFlag.NO_HOLE)) {
      end.done(new NbdException(NbdError.ENOTSUP, "zeroes that take storage are not fast"));
      return;
    }
    try {
      new Request(operation, end).begin();
    } catch (IOException failure) {
      end.done(failure);
    }
  }

  /** An operation in the library's hands, and the buffer that it uses. */
  private final class Request {
    private final Operation operation;
    private final Completion end;
    private final MemorySegment memory;
    private final @Nullable ByteBuffer copy;
    private final long began = System.nanoTime();
    private boolean flushes;

    Request(Operation operation, Completion end) throws IOException {
      this.operation = operation;
      this.end = end;
      boolean hasData =
          switch (operation.command()) {
            case READ, WRITE -> true;
            default -> false;
          };
      ByteBuffer data = hasData ? operation.data() : null;
      copy = data == null || data.isDirect() ? null : DirectMemory.JVM.allocate(data.remaining());
      ByteBuffer used = copy == null ? data : copy;
      memory = used == null ? MemorySegment.NULL : MemorySegment.ofBuffer(used);
      if (data != null && copy != null && operation.command() == Command.WRITE) {
        copy.put(data.duplicate()).flip();
      }
    }

    void begin() {
      String gone = lost;
      if (gone == null) {
        cluster.completions.begin(this::call, this::ended);
      } else {
        end.done(new LostException(NbdError.ESHUTDOWN, gone));
      }
    }

    private int call(long completion) throws Throwable {
      long offset = operation.offset();
      long length = operation.length();
      long address = memory.address();
      if (flushes) {
        return (int) lib.beginFlush.invokeExact(image, completion);
      }
      return switch (operation.command()) {
        case READ -> (int) lib.beginRead.invokeExact(image, offset, length, address, completion);
        case WRITE -> {
          int flags = operation.fua() ? LibRbd.FUA : 0;
          yield (int) lib.beginWrite.invokeExact(image, offset, length, address, completion, flags);
        }
        case TRIM -> (int) lib.beginTrim.invokeExact(image, offset, length, completion);
        case WRITE_ZEROES -> {
          int flags = operation.flags().has(CommandFlag.NO_HOLE) ? LibRbd.THICK : 0;
          yield (int) lib.beginZero.invokeExact(image, offset, length, completion, flags, 0);
        }
        case FLUSH -> (int) lib.beginFlush.invokeExact(image, completion);
        default -> throw new IllegalStateException("Ceph has no " + operation.command());
      };
    }

    private void ended(long result) {
      int messages = operation.command().writes() ? mostMessages : 1;
      if (mayRepeat((int) Math.min(result, 0), began, messages)) {
        begin();
      } else if (result >= 0 && !flushes && flushesForFua()) {
        flushes = true;
        begin();
      } else {
        end.done(failure(result));
      }
    }

    private boolean flushesForFua() {
      return switch (operation.command()) {
        case TRIM, WRITE_ZEROES -> operation.fua();
        default -> false;
      };
    }

    private @Nullable IOException failure(long result) {
      if (result == -RbdException.ESHUTDOWN) {
        return fenced();
      }
      if (result < 0) {
        return new RbdException(name.toString(), (int) -result);
      }
      return switch (operation.command()) {
        case FLUSH -> null;
        case READ -> result < operation.length() ? cutOff() : taken();
        // librbd drops what is past the end, and answers with success.
        default -> operation.offset() + operation.length() > knownSize ? cutOff() : written();
      };
    }

    private @Nullable IOException written() {
      if (operation.command() == Command.WRITE) {
        operation.data().position(operation.data().limit());
      }
      return null;
    }

    private @Nullable IOException taken() {
      ByteBuffer data = operation.data();
      if (copy == null) {
        data.position(data.limit());
      } else {
        data.put(copy);
      }
      return null;
    }

    private IOException cutOff() {
      return new NbdException(
          NbdError.EIO, name + " has become smaller", "the image has become smaller");
    }
  }

  private IOException fenced() {
    String reason =
        name + ": the cluster has shut this client out (another one has taken the image's lock)";
    lost = reason;
    cluster.shutOut();
    return new LostException(NbdError.EIO, reason);
  }

  /** Forgets what is kept for reads. Called while no operation runs, and nothing is unflushed. */
  void forget() throws IOException {
    long began = System.nanoTime();
    int result;
    do {
      result = LibRbd.call(_ -> (int) lib.invalidateCache.invokeExact(image));
    } while (mayRepeat(result, began, 1));
    succeeded("emptying its cache", result);
  }

  /** Answers a BLOCK_STATUS. */
  void status(Operation question) throws IOException {
    long most = MOST_OBJECTS * objectSize - question.offset() % objectSize;
    long length = Math.min(question.length(), most);
    long began = System.nanoTime();
    Answered answered;
    do {
      answered = differences(question, length);
    } while (mayRepeat(answered.result, began, 1));
    succeeded("its extents", answered.result);
    question.answer(answered.differences.extents());
  }

  /** What librbd has reported, and the result of the call. */
  private record Answered(Differences differences, int result) {}

  private Answered differences(Operation question, long length) {
    Differences differences = new Differences(question, length);
    try (Arena arena = Arena.ofShared()) {
      MemorySegment from =
          question.asksForDirty()
              ? arena.allocateFrom(name.since().orElseThrow())
              : MemorySegment.NULL;
      MemorySegment callback = differences.callback(lib.linker, arena);
      long offset = question.offset();
      byte withParent = 1;
      byte wholeObjects = 0;
      int result =
          LibRbd.call(
              _ ->
                  (int)
                      lib.differences.invokeExact(
                          image, from, offset, length, withParent, wholeObjects, callback, 0L));
      return new Answered(differences, result);
    }
  }

  /**
   * Closes it. Called once, when no operation runs.
   *
   * @throws IOException if data may not have been stored
   */
  synchronized void close() throws IOException {
    closed = true;
    LibRbd.call(_ -> (int) lib.unwatch.invokeExact(image, watch));
    cluster.completions.unwatch(watcher);
    checked("closing it", _ -> (int) lib.close.invokeExact(image));
  }
}
