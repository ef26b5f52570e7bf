package nbd.conformance;

import static nbd.protocol.TransmissionFlag.CAN_MULTI_CONN;
import static nbd.protocol.TransmissionFlag.READ_ONLY;
import static nbd.protocol.TransmissionFlag.SEND_CACHE;
import static nbd.protocol.TransmissionFlag.SEND_FAST_ZERO;
import static nbd.protocol.TransmissionFlag.SEND_FLUSH;
import static nbd.protocol.TransmissionFlag.SEND_FUA;
import static nbd.protocol.TransmissionFlag.SEND_TRIM;
import static nbd.protocol.TransmissionFlag.SEND_WRITE_ZEROES;

import java.io.IOException;
import java.time.Duration;
import java.util.EnumSet;
import java.util.Set;
import nbd.cache.CacheMode;
import nbd.file.DirectoryBackend;
import nbd.file.FileBackend;
import nbd.file.FileSettings;
import nbd.filter.ConnectionCacheFilter;
import nbd.filter.DelayFilter;
import nbd.filter.ErrorFilter;
import nbd.filter.ErrorRate;
import nbd.filter.FuaFilter;
import nbd.filter.FuaMode;
import nbd.filter.SerializeFilter;
import nbd.multiconn.MultiConnMode;
import nbd.protocol.BlockSizes;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Backend;
import nbd.storage.ThreadModel;
import nbd.testing.BitmapBackend;
import nbd.upstream.ReconnectingBackend;
import nbd.upstream.SharingBackend;

/**
 * The storages to serve: each backend, and each filter in front of one, in the order in which serve
 * puts them. A line here takes a storage or a filter through all cases.
 */
@SuppressWarnings("ImmutableEnumChecker") // nobody changes the sets, and the recipes keep nothing
enum Storage {
  MEMORY(all(), none(), Making::memory),
  FILE(many(), none(), with -> FileBackend.open(with.image(), FileSettings.DEFAULT)),
  DIRECTORY(many(), none(), with -> DirectoryBackend.open(with.directory(), FileSettings.DEFAULT)),
  BITMAP(all(), none(), with -> new BitmapBackend(with.memory(), "day")),
  READ_ONLY_EXPORT(EnumSet.of(READ_ONLY, SEND_FLUSH), writing(), Making::memory),
  UPSTREAM(all(), none(), with -> with.upstream(with.memory())),
  UPSTREAM_OF_A_FILE(
      many(), none(), with -> with.upstream(FileBackend.open(with.image(), FileSettings.DEFAULT))),
  UPSTREAM_THAT_CAN_LITTLE(
      none(), optional(), with -> with.upstream(with.little(BlockSizes.DEFAULT))),
  UPSTREAM_OF_BLOCKS(
      none(), optional(), with -> with.upstream(with.little(new BlockSizes(512, 4096, 4 << 20)))),
  LITTLE(none(), optional(), with -> with.little(BlockSizes.DEFAULT)),
  BLOCKS(none(), optional(), with -> with.little(new BlockSizes(4096, 4096, 1 << 20))),
  FUA_BY_FLUSH(all(), none(), with -> new FuaFilter(with.withoutFua(), FuaMode.PASS)),
  FUA_FORCED(all(), none(), with -> new FuaFilter(with.memory(), FuaMode.FORCE)),
  FUA_DISCARDED(all(), none(), with -> new FuaFilter(with.memory(), FuaMode.DISCARD)),
  WRITEBACK(all(), none(), with -> with.cache(with.alone(), CacheMode.WRITEBACK)),
  WRITETHROUGH(all(), none(), with -> with.cache(with.memory(), CacheMode.WRITETHROUGH)),
  UNSAFE_CACHE(all(), none(), with -> with.cache(with.alone(), CacheMode.UNSAFE)),
  AUTO(all(), none(), with -> with.multiConn(with.alone(), MultiConnMode.AUTO)),
  EMULATE(all(), none(), with -> with.multiConn(with.alone(), MultiConnMode.EMULATE)),
  DISABLE(many(), multiConn(), with -> with.multiConn(with.memory(), MultiConnMode.DISABLE)),
  PLUGIN(all(), none(), with -> with.multiConn(with.memory(), MultiConnMode.PLUGIN)),
  PLUGIN_WITHOUT(many(), multiConn(), with -> with.multiConn(with.alone(), MultiConnMode.PLUGIN)),
  UNSAFE(all(), none(), with -> with.multiConn(with.memory(), MultiConnMode.UNSAFE)),
  DELAY(
      all(),
      none(),
      with ->
          new DelayFilter(
              with.memory(), Duration.ofNanos(1), Duration.ofNanos(1), Duration.ofNanos(1))),
  ERROR(
      all(),
      none(),
      with -> new ErrorFilter(with.memory(), ErrorRate.NONE, ErrorRate.NONE, ErrorRate.NONE, 1)),
  CONNECTION_CACHE(
      many(),
      none(),
      with ->
          with.multiConn(new ConnectionCacheFilter(with.memory(), 1 << 20), MultiConnMode.AUTO)),
  SHARED(all(), none(), with -> new SharingBackend(with.upstream(with.alone()), name -> "")),
  RECONNECT(
      all(),
      none(),
      with ->
          new ReconnectingBackend(
              with.upstream(with.memory()), name -> "", Duration.ofSeconds(10), 16L << 20, false)),
  SERIALIZE_REQUESTS(
      many(), none(), with -> new SerializeFilter(with.memory(), ThreadModel.SERIALIZE_REQUESTS)),
  SERIALIZE_ALL_REQUESTS(
      many(),
      none(),
      with -> new SerializeFilter(with.memory(), ThreadModel.SERIALIZE_ALL_REQUESTS)),
  SERIALIZE_CONNECTIONS(
      many(),
      multiConn(),
      with ->
          with.multiConn(
              new SerializeFilter(with.memory(), ThreadModel.SERIALIZE_CONNECTIONS),
              MultiConnMode.AUTO));

  /** The export's size in bytes: a little more than the longest READ. */
  static final int SIZE = 34 << 20;

  private final Set<TransmissionFlag> told;
  private final Set<TransmissionFlag> untold;
  private final Recipe recipe;

  /** A way to make the storage and its filters. */
  @FunctionalInterface
  interface Recipe {
    Backend make(Making with) throws IOException;
  }

  Storage(Set<TransmissionFlag> told, Set<TransmissionFlag> untold, Recipe recipe) {
    this.told = told;
    this.untold = untold;
    this.recipe = recipe;
  }

  private static Set<TransmissionFlag> none() {
    return EnumSet.noneOf(TransmissionFlag.class);
  }

  /** Returns the flags of most storages. */
  private static Set<TransmissionFlag> many() {
    return EnumSet.of(SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, SEND_CACHE);
  }

  private static Set<TransmissionFlag> multiConn() {
    return EnumSet.of(CAN_MULTI_CONN);
  }

  /** Returns the flags of memory. */
  private static Set<TransmissionFlag> all() {
    Set<TransmissionFlag> flags = many();
    flags.add(SEND_FAST_ZERO);
    flags.add(CAN_MULTI_CONN);
    return flags;
  }

  private static Set<TransmissionFlag> writing() {
    return EnumSet.of(SEND_TRIM, SEND_WRITE_ZEROES, SEND_FAST_ZERO);
  }

  private static Set<TransmissionFlag> optional() {
    Set<TransmissionFlag> flags = all();
    flags.add(READ_ONLY);
    return flags;
  }

  /** Returns the flags that every client is sent, whatever it agrees on. */
  Set<TransmissionFlag> told() {
    return told;
  }

  /** Returns flags that no client may be sent. */
  Set<TransmissionFlag> untold() {
    return untold;
  }

  /** Says whether a flush does not cover other connections in spite of CAN_MULTI_CONN. */
  boolean breaksItsPromise() {
    return this == UNSAFE;
  }

  Backend make(Making with) throws IOException {
    return recipe.make(with);
  }
}
