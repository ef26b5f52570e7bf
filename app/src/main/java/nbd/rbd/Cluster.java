package nbd.rbd;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReplyType;
import nbd.rbd.RbdSettings.Handles;

/**
 * A connection to a cluster, and one of its pools. The methods that wait for the cluster are called
 * by platform threads. Any thread may call.
 */
final class Cluster implements AutoCloseable {
  private static final String CLIENT = "client.";

  final LibRbd lib;
  final Completions completions;
  private final RbdName pool;
  private final long rados;
  private final long ioContext;
  private final List<String> addresses;

  /** True once the cluster has shut this client out. */
  private volatile boolean isShutOut;

  private Cluster(
      LibRbd lib,
      Completions completions,
      RbdName pool,
      long rados,
      long ioContext,
      List<String> addresses) {
    this.lib = lib;
    this.completions = completions;
    this.pool = pool;
    this.rados = rados;
    this.ioContext = ioContext;
    this.addresses = addresses;
  }

  /**
   * Connects.
   *
   * @param pool the pool and its namespace; an image is ignored
   * @throws IOException with a message for the user
   */
  static Cluster connect(LibRbd lib, Completions completions, RbdName pool, RbdSettings settings)
      throws IOException {
    long rados = create(lib, settings.user());
    boolean connected = false;
    try {
      try {
        configure(lib, rados, settings);
      } catch (RbdException wrong) {
        throw new IOException(wrong.getMessage(), wrong);
      }
      LibRbd.checked(
          "connecting to the Ceph cluster", arena -> (int) lib.radosConnect.invokeExact(rados));
      List<String> addresses = addresses(lib, rados);
      long ioContext = openPool(lib, rados, pool);
      Cluster made = new Cluster(lib, completions, pool, rados, ioContext, addresses);
      connected = true;
      return made;
    } finally {
      if (!connected) {
        shutDown(lib, rados);
      }
    }
  }

  private static long create(LibRbd lib, String user) throws IOException {
    try (Arena outer = Arena.ofConfined()) {
      MemorySegment made = outer.allocate(ADDRESS);
      String name = user.startsWith(CLIENT) ? user : CLIENT + user;
      LibRbd.checked(
          "Ceph's client",
          arena ->
              (int)
                  lib.radosCreate.invokeExact(
                      made, arena.allocateFrom("ceph"), arena.allocateFrom(name), 0L));
      return made.get(JAVA_LONG, 0);
    }
  }

  private static void configure(LibRbd lib, long rados, RbdSettings settings) throws IOException {
    String path = settings.configuration().map(Object::toString).orElse("");
    int read =
        LibRbd.call(
            arena -> {
              MemorySegment file = path.isEmpty() ? MemorySegment.NULL : arena.allocateFrom(path);
              return (int) lib.radosReadConfiguration.invokeExact(rados, file);
            });
    if (read < 0 && !(path.isEmpty() && settings.options().containsKey("mon_host"))) {
      throw new RbdException(
          path.isEmpty() ? "Ceph's configuration (name its file by --ceph-conf)" : path, -read);
    }
    LibRbd.checked(
        "CEPH_ARGS",
        arena -> (int) lib.radosReadEnvironment.invokeExact(rados, MemorySegment.NULL));
    Map<String, String> options = limits(settings.timeout());
    options.putAll(cache(settings.handles()));
    options.putAll(settings.options());
    for (Map.Entry<String, String> option : options.entrySet()) {
      int result = set(lib, rados, option.getKey(), option.getValue());
      if (result == -RbdException.ENOENT) {
        throw new IOException("Ceph has no option " + option.getKey());
      }
      if (result < 0) {
        throw new IOException(
            "\"%s\" is no value for Ceph's option %s"
                .formatted(option.getValue(), option.getKey()));
      }
    }
  }

  /**
   * The options that limit how long the cluster may take. No request waits inside the client for
   * others to end, so that the limit holds for each; the server limits how many there are. And a
   * message that is late does not make librbd mark the image's object map as wrong.
   */
  private static Map<String, String> limits(Duration timeout) {
    Map<String, String> options = new LinkedHashMap<>();
    options.put("rados_osd_op_timeout", String.valueOf(Image.attempt(timeout).toSeconds()));
    options.put("rados_mon_op_timeout", String.valueOf(timeout.toSeconds()));
    options.put("client_mount_timeout", String.valueOf(timeout.toSeconds()));
    options.put("objecter_inflight_ops", "0");
    options.put("objecter_inflight_op_bytes", "0");
    options.put("rbd_invalidate_object_map_on_timeout", "false");
    return options;
  }

  /**
   * The options of the cache. Its default policy, writearound, is of no use: after a write has
   * failed that was answered before, it answers the next flush with success.
   */
  private static Map<String, String> cache(Handles handles) {
    return Map.of(
        "rbd_cache",
        String.valueOf(handles == Handles.CONNECTION),
        "rbd_cache_policy",
        "writeback");
  }

  private static int set(LibRbd lib, long rados, String key, String value) {
    return LibRbd.call(
        arena ->
            (int)
                lib.radosSet.invokeExact(
                    rados, arena.allocateFrom(key), arena.allocateFrom(value)));
  }

  private static long openPool(LibRbd lib, long rados, RbdName name) throws IOException {
    try (Arena outer = Arena.ofConfined()) {
      MemorySegment made = outer.allocate(ADDRESS);
      int result =
          LibRbd.call(
              arena ->
                  (int) lib.poolOpen.invokeExact(rados, arena.allocateFrom(name.pool()), made));
      if (result == -RbdException.ENOENT) {
        throw new OptionException(
            OptionReplyType.ERR_UNKNOWN,
            "there is no pool " + name.pool() + " in the Ceph cluster",
            "there is no such pool",
            null);
      }
      if (result < 0) {
        throw new RbdException("Ceph's pool " + name.pool(), -result);
      }
      long ioContext = made.get(JAVA_LONG, 0);
      LibRbd.call(
          arena -> {
            lib.poolNamespace.invokeExact(ioContext, arena.allocateFrom(name.namespace()));
            return 0;
          });
      return ioContext;
    }
  }

  /** Returns the addresses of this client, by which it owns locks. */
  private static List<String> addresses(LibRbd lib, long rados) throws IOException {
    try (Arena outer = Arena.ofConfined()) {
      MemorySegment found = outer.allocate(ADDRESS);
      LibRbd.checked("Ceph's client", arena -> (int) lib.radosAddresses.invokeExact(rados, found));
      MemorySegment text = found.get(ADDRESS, 0);
      String list = LibRbd.string(text);
      LibRbd.call(
          _ -> {
            lib.radosFree.invokeExact(text);
            return 0;
          });
      return List.of(list.split("[\\[\\],]+"));
    }
  }

  /** Says whether an address, as locks name their owner, is this client's. */
  boolean isOwn(String address) {
    return addresses.stream().anyMatch(own -> own.endsWith(address));
  }

  /**
   * Lists the images of the pool, in the order of their names.
   *
   * @throws IOException if the cluster fails
   */
  List<String> images() throws IOException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment size = arena.allocate(JAVA_LONG);
      long room = 1 << 12;
      while (true) {
        MemorySegment names = arena.allocate(room);
        size.set(JAVA_LONG, 0, room);
        int result = LibRbd.call(_ -> (int) lib.list.invokeExact(ioContext, names, size));
        if (result != -RbdException.ERANGE) {
          if (result < 0) {
            throw new RbdException("the images of " + pool, -result);
          }
          byte[] bytes = names.asSlice(0, result).toArray(JAVA_BYTE);
          return Stream.of(new String(bytes, UTF_8).split("\0", -1))
              .filter(name -> !name.isEmpty())
              .sorted()
              .toList();
        }
        room = Math.max(2 * room, size.get(JAVA_LONG, 0));
      }
    }
  }

  /** The pool, as librbd knows it. */
  long ioContext() {
    return ioContext;
  }

  /** Says whether new images may be opened. */
  boolean isUsable() {
    return !isShutOut;
  }

  void shutOut() {
    isShutOut = true;
  }

  /** Disconnects. Called when no image is open. */
  @Override
  public void close() {
    LibRbd.call(
        _ -> {
          lib.poolClose.invokeExact(ioContext);
          return 0;
        });
    shutDown(lib, rados);
  }

  private static void shutDown(LibRbd lib, long rados) {
    LibRbd.call(
        _ -> {
          lib.radosShutdown.invokeExact(rados);
          return 0;
        });
  }
}
