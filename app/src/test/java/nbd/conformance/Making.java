package nbd.conformance;

import java.io.Closeable;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.net.UnixDomainSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.function.UnaryOperator;
import nbd.cache.CacheFilter;
import nbd.cache.CacheMode;
import nbd.cache.CacheSettings;
import nbd.cache.CacheStatistics;
import nbd.client.ClientSettings;
import nbd.client.NbdUri;
import nbd.filter.Statistics;
import nbd.filter.StatisticsFilter;
import nbd.memory.MemoryBackend;
import nbd.multiconn.MultiConnFilter;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.MultiConnSettings;
import nbd.multiconn.TrackDirty;
import nbd.protocol.BlockSizes;
import nbd.server.TestServer;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.testing.HookedBackend;
import nbd.upstream.UpstreamBackend;

/** A factory for the parts of a test's storages, which also removes them at the end. */
final class Making implements Closeable {
  /** The name of the file in {@link #directory}. */
  static final String FILE_NAME = "disk";

  private final Path place;
  private final Deque<Closeable> last = new ArrayDeque<>();

  /** Uses an empty directory, which is left empty. */
  Making(Path place) {
    this.place = place;
  }

  Backend memory() {
    return new MemoryBackend(Storage.SIZE);
  }

  /** Makes a sparse file. */
  Path image() throws IOException {
    Path image = place.resolve(FILE_NAME);
    try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
      file.setLength(Storage.SIZE);
    }
    last.push(() -> Files.deleteIfExists(image));
    return image;
  }

  /** Makes a directory with a sparse file in it. */
  Path directory() throws IOException {
    image();
    return place;
  }

  private static Backend with(Backend backend, UnaryOperator<ExportFacts> facts) {
    return new HookedBackend(backend, facts, Handle::perform);
  }

  /** Makes memory that can be read and written, and nothing else. */
  Backend little(BlockSizes sizes) {
    Capabilities can = Capabilities.of(Capability.WRITE);
    return with(
        memory(),
        facts -> new ExportFacts(facts.size(), sizes, can, facts.description(), facts.identity()));
  }

  /** Makes memory without FUA. */
  Backend withoutFua() {
    return with(memory(), facts -> facts.with(facts.capabilities().without(Capability.FUA)));
  }

  /** Makes memory that is not multi-conn. */
  Backend alone() {
    return with(memory(), facts -> facts.with(facts.capabilities().without(Capability.MULTI_CONN)));
  }

  /** Adds the filters that serve puts in front of every storage, in a mode. */
  Backend multiConn(Backend below, MultiConnMode mode) {
    MultiConnSettings settings = new MultiConnSettings(mode, TrackDirty.CONNECTION, false, false);
    return new StatisticsFilter(new MultiConnFilter(below, settings), new Statistics());
  }

  /** Adds a cache, small enough for a case to fill it. */
  Backend cache(Backend below, CacheMode mode) {
    return new CacheFilter(
        below, new CacheSettings(mode, 1 << 20, 4096), false, new CacheStatistics());
  }

  /** Starts a second server of this storage, and returns a backend that is its client. */
  Backend upstream(Backend far) throws IOException {
    last.push(far::close);
    TestServer server = TestServer.of(far);
    last.push(server::close);
    Path socket = ((UnixDomainSocketAddress) server.address()).getPath();
    return new UpstreamBackend(NbdUri.unix(socket, ""), false, ClientSettings.DEFAULT);
  }

  @Override
  public void close() throws IOException {
    while (!last.isEmpty()) {
      last.pop().close();
    }
  }
}
