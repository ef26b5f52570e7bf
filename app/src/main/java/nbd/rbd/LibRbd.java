package nbd.rbd;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.util.Arrays;
import java.util.NoSuchElementException;

/**
 * The functions of librados and librbd. Version 16 has all of them; none is optional. Source:
 * rados/librados.h and rbd/librbd.h. Pointers to clusters, pools, images and completions are
 * addresses; 0 is none.
 *
 * <p>rados-java is not used: it only has the calls that wait, through JNA.
 */
@SuppressWarnings("restricted") // calling the library is what this class is for
final class LibRbd {
  /** The flag of a write that is answered when its data is durable. */
  static final int FUA = 0x80;

  /** The flag of zeroes that take storage. */
  static final int THICK = 1;

  /** The feature of images that one client at a time writes. */
  static final long EXCLUSIVE_LOCK = 4;

  /** The type of the callback for the end of a call: the completion, and the caller's number. */
  static final FunctionDescriptor ENDED = FunctionDescriptor.ofVoid(JAVA_LONG, JAVA_LONG);

  /** The type of the callback for an image that has changed: the caller's number. */
  static final FunctionDescriptor UPDATED = FunctionDescriptor.ofVoid(JAVA_LONG);

  /** The type of the callback for a stretch: its offset and length, and whether it has data. */
  static final FunctionDescriptor DIFFERENCE =
      FunctionDescriptor.of(JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT, JAVA_LONG);

  final Linker linker = Linker.nativeLinker();
  private final SymbolLookup symbols;

  final MethodHandle radosCreate;
  final MethodHandle radosReadConfiguration;
  final MethodHandle radosReadEnvironment;
  final MethodHandle radosSet;
  final MethodHandle radosConnect;
  final MethodHandle radosShutdown;
  final MethodHandle radosAddresses;
  final MethodHandle radosFree;
  final MethodHandle poolOpen;
  final MethodHandle poolClose;
  final MethodHandle poolNamespace;
  final MethodHandle list;
  final MethodHandle open;
  final MethodHandle openReadOnly;
  final MethodHandle close;
  final MethodHandle size;
  final MethodHandle features;
  final MethodHandle stat;
  final MethodHandle options;
  final MethodHandle optionsFree;
  final MethodHandle lockOwners;
  final MethodHandle lockOwnersFree;
  final MethodHandle lockBreak;
  final MethodHandle watch;
  final MethodHandle unwatch;
  final MethodHandle invalidateCache;
  final MethodHandle differences;
  final MethodHandle beginRead;
  final MethodHandle beginWrite;
  final MethodHandle beginTrim;
  final MethodHandle beginZero;
  final MethodHandle beginFlush;
  final MethodHandle completionMake;
  final MethodHandle completionResult;
  final MethodHandle completionFree;

  private LibRbd(SymbolLookup symbols) {
    this.symbols = symbols;
    radosCreate = returnsInt("rados_create2", ADDRESS, ADDRESS, ADDRESS, JAVA_LONG);
    radosReadConfiguration = returnsInt("rados_conf_read_file", JAVA_LONG, ADDRESS);
    radosReadEnvironment = returnsInt("rados_conf_parse_env", JAVA_LONG, ADDRESS);
    radosSet = returnsInt("rados_conf_set", JAVA_LONG, ADDRESS, ADDRESS);
    radosConnect = returnsInt("rados_connect", JAVA_LONG);
    radosShutdown = returnsNothing("rados_shutdown", JAVA_LONG);
    radosAddresses = returnsInt("rados_getaddrs", JAVA_LONG, ADDRESS);
    radosFree = returnsNothing("rados_buffer_free", ADDRESS);
    poolOpen = returnsInt("rados_ioctx_create", JAVA_LONG, ADDRESS, ADDRESS);
    poolClose = returnsNothing("rados_ioctx_destroy", JAVA_LONG);
    poolNamespace = returnsNothing("rados_ioctx_set_namespace", JAVA_LONG, ADDRESS);
    list = returnsInt("rbd_list", JAVA_LONG, ADDRESS, ADDRESS);
    open = returnsInt("rbd_open", JAVA_LONG, ADDRESS, ADDRESS, ADDRESS);
    openReadOnly = returnsInt("rbd_open_read_only", JAVA_LONG, ADDRESS, ADDRESS, ADDRESS);
    close = returnsInt("rbd_close", JAVA_LONG);
    size = returnsInt("rbd_get_size", JAVA_LONG, ADDRESS);
    features = returnsInt("rbd_get_features", JAVA_LONG, ADDRESS);
    stat = returnsInt("rbd_stat", JAVA_LONG, ADDRESS, JAVA_LONG);
    options = returnsInt("rbd_config_image_list", JAVA_LONG, ADDRESS, ADDRESS);
    optionsFree = returnsNothing("rbd_config_image_list_cleanup", ADDRESS, JAVA_INT);
    lockOwners = returnsInt("rbd_lock_get_owners", JAVA_LONG, ADDRESS, ADDRESS, ADDRESS);
    lockOwnersFree = returnsNothing("rbd_lock_get_owners_cleanup", ADDRESS, JAVA_LONG);
    lockBreak = returnsInt("rbd_lock_break", JAVA_LONG, JAVA_INT, ADDRESS);
    watch = returnsInt("rbd_update_watch", JAVA_LONG, ADDRESS, ADDRESS, JAVA_LONG);
    unwatch = returnsInt("rbd_update_unwatch", JAVA_LONG, JAVA_LONG);
    invalidateCache = returnsInt("rbd_invalidate_cache", JAVA_LONG);
    differences =
        returnsInt(
            "rbd_diff_iterate2",
            JAVA_LONG,
            ADDRESS,
            JAVA_LONG,
            JAVA_LONG,
            JAVA_BYTE,
            JAVA_BYTE,
            ADDRESS,
            JAVA_LONG);
    beginRead = returnsInt("rbd_aio_read", JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    beginWrite =
        returnsInt(
            "rbd_aio_write2", JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_INT);
    beginTrim = returnsInt("rbd_aio_discard", JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    beginZero =
        returnsInt(
            "rbd_aio_write_zeroes", JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_INT, JAVA_INT);
    beginFlush = returnsInt("rbd_aio_flush", JAVA_LONG, JAVA_LONG);
    completionMake = returnsInt("rbd_aio_create_completion", JAVA_LONG, ADDRESS, ADDRESS);
    completionResult =
        function("rbd_aio_get_return_value", FunctionDescriptor.of(JAVA_LONG, JAVA_LONG));
    completionFree = returnsNothing("rbd_aio_release", JAVA_LONG);
  }

  /**
   * Loads the libraries.
   *
   * @throws IOException with a message for the user, if they are not there or too old
   */
  static LibRbd load() throws IOException {
    return load("librbd.so.1", "librados.so.2");
  }

  static LibRbd load(String rbd, String rados) throws IOException {
    try {
      Arena forever = Arena.global();
      return new LibRbd(
          SymbolLookup.libraryLookup(rbd, forever).or(SymbolLookup.libraryLookup(rados, forever)));
    } catch (IllegalArgumentException missing) {
      throw new IOException(
          "Ceph's library %s is not installed: install Debian's package librbd1".formatted(rbd),
          missing);
    } catch (NoSuchElementException missing) {
      throw new IOException(
          "Ceph's library %s is older than version 16: %s".formatted(rbd, missing.getMessage()),
          missing);
    }
  }

  private MethodHandle returnsInt(String name, MemoryLayout... parameters) {
    return function(name, FunctionDescriptor.of(JAVA_INT, parameters));
  }

  private MethodHandle returnsNothing(String name, MemoryLayout... parameters) {
    return function(name, FunctionDescriptor.ofVoid(parameters));
  }

  private MethodHandle function(String name, FunctionDescriptor type) {
    return linker.downcallHandle(symbols.findOrThrow(name), type);
  }

  /** A call, with memory for its arguments. */
  @FunctionalInterface
  interface Call {
    /** Returns what the library returns; throws nothing that a caller expects. */
    int run(Arena arena) throws Throwable;
  }

  /** Makes a call, and returns its result: a negative number is a negative errno. */
  static int call(Call call) {
    try (Arena arena = Arena.ofConfined()) {
      return call.run(arena);
    } catch (Throwable impossible) {
      throw new AssertionError(impossible);
    }
  }

  /**
   * Makes a call.
   *
   * @param what the storage and the call, for messages
   * @throws IOException if it fails
   */
  static void checked(String what, Call call) throws IOException {
    int result = call(call);
    if (result < 0) {
      throw new RbdException(what, -result);
    }
  }

  /** Returns the strings of an array of the library's. */
  static String[] strings(MemorySegment array, int count) {
    String[] strings = new String[count];
    Arrays.setAll(strings, i -> string(array.getAtIndex(ADDRESS, i)));
    return strings;
  }

  /** Returns a string of the library's. */
  static String string(MemorySegment pointer) {
    return pointer.reinterpret(Long.MAX_VALUE).getString(0);
  }
}
