package nbd.rbd;

import java.io.IOException;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReplyType;
import nbd.rbd.RbdSettings.Handles;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.storage.ListedExport;
import nbd.storage.SharedByName;
import nbd.storage.ThreadModel;
import nbd.threads.BlockingCalls;

/**
 * An image of a Ceph cluster, or all images of a pool by their names. The cluster is connected to
 * while an image is open.
 */
public final class RbdBackend implements Backend {
  private final RbdName name;
  private final RbdSettings settings;
  private final LibRbd lib;
  private final Completions completions;
  private final BlockingCalls blocking = BlockingCalls.ofManyFiles("rbd");
  private final SharedByName<Cluster> clusters =
      new SharedByName<>(Cluster::isUsable, this::disconnect);
  private final SharedByName<OpenImage> images =
      new SharedByName<>(RbdBackend::isUsable, this::close);
  private final Set<Image> open = ConcurrentHashMap.newKeySet();
  private volatile boolean isStopping;

  /** An image, and the connection to the cluster that it needs. */
  private record OpenImage(Image image, SharedByName<Cluster>.Lease cluster) {}

  private static boolean isUsable(OpenImage opened) {
    return opened.image.lost().isEmpty() && opened.cluster.thing().isUsable();
  }

  private RbdBackend(RbdName name, RbdSettings settings, LibRbd lib) {
    this.name = name;
    this.settings = settings;
    this.lib = lib;
    this.completions = new Completions(lib);
  }

  /**
   * Loads librbd. Nothing is connected to yet.
   *
   * @throws IOException with a message for the user if it is missing
   */
  public static RbdBackend of(RbdName name, RbdSettings settings) throws IOException {
    return new RbdBackend(name, settings, LibRbd.load());
  }

  @Override
  public String name() {
    return name.toString();
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  private SharedByName<Cluster>.Lease connect() throws IOException {
    return clusters.acquire(
        "", () -> blocking.ask(() -> Cluster.connect(lib, completions, name, settings)));
  }

  private void disconnect(Cluster cluster) throws IOException {
    blocking.run(cluster::close);
  }

  @Override
  public Optional<List<ListedExport>> exports() throws IOException {
    if (name.image().isPresent()) {
      return Optional.empty();
    }
    SharedByName<Cluster>.Lease cluster = connect();
    try {
      return Optional.of(
          blocking.ask(cluster.thing()::images).stream()
              .map(image -> new ListedExport(image, ""))
              .toList());
    } finally {
      cluster.release();
    }
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    RbdName wanted = name.image().isPresent() ? name : imageOf(exportName);
    if (settings.handles() == Handles.CONNECTION) {
      OpenImage own = openImage(wanted, readOnly);
      return handle(own, () -> close(own));
    }
    SharedByName<OpenImage>.Lease shared =
        images.acquire((readOnly ? "read-only " : "") + wanted, () -> openImage(wanted, readOnly));
    return handle(shared.thing(), shared::release);
  }

  private RbdName imageOf(String exportName) throws OptionException {
    try {
      return name.withImage(exportName);
    } catch (IllegalArgumentException wrong) {
      throw new OptionException(OptionReplyType.ERR_UNKNOWN, wrong.getMessage() + "");
    }
  }

  private OpenImage openImage(RbdName wanted, boolean readOnly) throws IOException {
    SharedByName<Cluster>.Lease cluster = connect();
    boolean opened = false;
    try {
      Image image =
          blocking.ask(() -> Image.open(cluster.thing(), wanted, readOnly, settings, blocking));
      opened = true;
      open.add(image);
      if (isStopping) {
        image.stopWaiting();
      }
      return new OpenImage(image, cluster);
    } finally {
      if (!opened) {
        cluster.release();
      }
    }
  }

  private Handle handle(OpenImage opened, BlockingCalls.Call closing) throws IOException {
    boolean made = false;
    try {
      Image image = opened.image;
      Handle handle =
          settings.handles() == Handles.CONNECTION
              ? new CachedHandle(blocking.ask(image::facts), image, blocking, closing)
              : new RbdHandle(blocking.ask(image::facts), image, blocking, closing);
      made = true;
      return handle;
    } finally {
      if (!made) {
        closing.run();
      }
    }
  }

  private void close(OpenImage opened) throws IOException {
    open.remove(opened.image);
    try {
      blocking.run(opened.image::close);
    } finally {
      opened.cluster.release();
    }
  }

  @Override
  public void stopWaiting() {
    isStopping = true;
    open.forEach(Image::stopWaiting);
  }

  @Override
  public void close() {
    blocking.close();
    completions.close();
  }
}
