package nbd.server;

import java.io.IOException;
import java.time.Duration;
import java.util.HashSet;
import java.util.List;
import java.util.OptionalLong;
import java.util.Set;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReplyType;
import nbd.protocol.Printable;
import nbd.protocol.ReplyFormat;
import nbd.storage.Backend;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.transmission.OpenExport;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * One backend under one or more names, and the clients that have opened it. Any thread may call any
 * method.
 *
 * <p>Invariant: each handle of the backend belongs to an opening, which is in {@link #openings}
 * from before the handle is opened until after it was closed. No opening is added to an export that
 * is {@code REMOVED}, and the state never leaves that. So when the export is removed and has no
 * openings, there is no handle and none will be opened: then, and once only, the backend is closed,
 * by the thread that has removed the export or by the last client that leaves it.
 *
 * <p>A client is stopped under the lock, and only while its opening is there. So a client that has
 * left for another export is not stopped by the end of this one.
 */
public final class Export {
  /** The time that a client waits for a place in an export with a limit of clients. */
  private static final Duration PLACE_PATIENCE = Duration.ofSeconds(5);

  private final List<String> names;
  private final Backend backend;
  private final Settings settings;

  /** Guards the fields below. No call to the backend is made under it. */
  private final ReentrantLock lock = new ReentrantLock();

  /** Signals that an opening has gone, the state has changed, or the backend is closed. */
  private final Condition changed = lock.newCondition();

  private final Set<Opening> openings = new HashSet<>();
  private State state = State.SERVING;
  private Closing closing = Closing.NOT_BEGUN;
  private @Nullable IOException closeFailure;

  /** The size that the last handle had, in bytes; -1 before the first. */
  private long size = -1;

  /** The end of an export, which goes forward only, except that a drained one may serve again. */
  private enum State {
    SERVING,
    DRAINED,
    REMOVED
  }

  private enum Closing {
    NOT_BEGUN,
    BEGUN,
    DONE
  }

  /**
   * The way in which an export is served.
   *
   * @param description a text for people; if it is empty, the backend's own
   * @param readOnly whether writing is refused
   * @param maxClients limit on the clients at a time; 0 for none. A client waits a few seconds for
   *     its place, and is refused then.
   * @param mode the multi-conn mode, for people
   */
  public record Settings(String description, boolean readOnly, int maxClients, String mode) {
    /** Has no limit of clients of its own. */
    public Settings(String description, boolean readOnly) {
      this(description, readOnly, 0, "");
    }
  }

  /** A client's connection, which an export that ends can end. */
  interface Client {
    /** Ends the connection when the requests that it has received are answered; does not wait. */
    void stop();

    /** Ends the connection now; does not wait. */
    void close();

    /** A use of the export that is short. */
    Client ENDS_BY_ITSELF =
        new Client() {
          @Override
          public void stop() {
            // It is about to end.
          }

          @Override
          public void close() {
            // It is about to end.
          }
        };
  }

  /** One client's use of the export; each is different from every other. */
  private static final class Opening {
    final Client client;

    Opening(Client client) {
      this.client = client;
    }
  }

  /**
   * Describes an export that serves as soon as it is among those of a server.
   *
   * @param backend the storage, with its filters
   * @param names all names; empty if the backend has exports with names of their own
   */
  public Export(Backend backend, List<String> names, Settings settings) {
    this.backend = backend;
    this.names = List.copyOf(names);
    this.settings = settings;
  }

  /** Returns all names; empty if the backend has exports with names of their own. */
  public List<String> names() {
    return names;
  }

  /** Names the export for a message. */
  public String words() {
    return names.isEmpty() ? backend.name() : "\"" + Printable.name(names.getFirst()) + "\"";
  }

  Backend backend() {
    return backend;
  }

  /** Says whether the content is lost when this process ends. */
  public boolean isVolatile() {
    return backend.isVolatile();
  }

  String description() {
    return settings.description();
  }

  /** Describes the export at this moment. */
  public ExportState state() {
    lock.lock();
    try {
      return new ExportState(
          names,
          backend.name(),
          size < 0 || names.isEmpty() ? OptionalLong.empty() : OptionalLong.of(size),
          openings.size(),
          settings.readOnly(),
          settings.mode(),
          state == State.SERVING);
    } finally {
      lock.unlock();
    }
  }

  /**
   * Opens the export for a client with which nothing else was agreed on.
   *
   * @throws OptionException ERR_UNKNOWN if it was removed, ERR_SHUTDOWN while it is drained
   * @throws IOException if the storage failed
   */
  OpenExport open(String name, Client client) throws IOException {
    Opening opening = enter(client);
    boolean opened = false;
    try {
      Handle handle = backend.open(name, settings.readOnly());
      String described =
          settings.description().isEmpty() ? handle.facts().description() : settings.description();
      OpenExport export =
          new OpenExport(
              name, described, handle, ReplyFormat.SIMPLE, Set.of(), () -> leave(opening));
      noteSize(handle.size());
      opened = true;
      return export;
    } finally {
      if (!opened) {
        leave(opening);
      }
    }
  }

  private Opening enter(Client client) throws OptionException {
    lock.lock();
    try {
      long left = PLACE_PATIENCE.toNanos();
      while (state == State.SERVING && isFull() && left > 0) {
        left = changed.awaitNanos(left);
      }
      requireServing();
      if (isFull()) {
        throw new OptionException(
            OptionReplyType.ERR_POLICY,
            "the export serves " + settings.maxClients() + " clients at a time, and no more");
      }
      Opening opening = new Opening(client);
      openings.add(opening);
      return opening;
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      throw new OptionException(OptionReplyType.ERR_SHUTDOWN, "the server stops");
    } finally {
      lock.unlock();
    }
  }

  private boolean isFull() {
    return settings.maxClients() > 0 && openings.size() >= settings.maxClients();
  }

  private void requireServing() throws OptionException {
    switch (state) {
      case SERVING -> {}
      case DRAINED ->
          throw new OptionException(
              OptionReplyType.ERR_SHUTDOWN, "the export is drained; it may come back");
      case REMOVED ->
          throw new OptionException(OptionReplyType.ERR_UNKNOWN, "the export was removed");
    }
  }

  private void noteSize(long bytes) {
    lock.lock();
    try {
      size = bytes;
    } finally {
      lock.unlock();
    }
  }

  private void leave(Opening opening) {
    boolean last;
    lock.lock();
    try {
      openings.remove(opening);
      changed.signalAll();
      last = mayClose();
    } finally {
      lock.unlock();
    }
    if (last) {
      closeBackend();
    }
  }

  /** True for one caller only, which then closes the backend. The lock is held. */
  private boolean mayClose() {
    if (state != State.REMOVED || !openings.isEmpty() || closing != Closing.NOT_BEGUN) {
      return false;
    }
    closing = Closing.BEGUN;
    return true;
  }

  private void closeBackend() {
    IOException failure = null;
    try {
      backend.close();
    } catch (IOException lost) {
      failure = lost;
    } catch (RuntimeException | Error mistake) {
      failure = new IOException(mistake.toString(), mistake);
    }
    lock.lock();
    try {
      closing = Closing.DONE;
      closeFailure = failure;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /** Refuses new clients for good, and stops the present ones; does not wait for them. */
  void retire() {
    backend.stopWaiting();
    if (refuse(State.REMOVED)) {
      closeBackend();
    }
  }

  /** Changes the state, and stops the clients; true if the caller has to close the backend. */
  private boolean refuse(State next) {
    lock.lock();
    try {
      if (state != State.REMOVED) {
        state = next;
      }
      changed.signalAll();
      openings.forEach(opening -> opening.client.stop());
      return mayClose();
    } finally {
      lock.unlock();
    }
  }

  /**
   * Waits until an export that was removed is closed.
   *
   * @param patience after which clients that are still there are cut; as long again they have to
   *     leave
   * @return false if the storage still works for a client: the last one that leaves closes it
   * @throws IOException why the storage could not be closed
   */
  boolean awaitClosed(Duration patience) throws IOException {
    boolean gone = awaitLeaving(patience);
    lock.lock();
    try {
      while (gone && closing != Closing.DONE) {
        changed.awaitUninterruptibly();
      }
      if (closeFailure != null) {
        throw closeFailure;
      }
      return gone;
    } finally {
      lock.unlock();
    }
  }

  /** Returns whether clients may open it. */
  boolean isServing() {
    lock.lock();
    try {
      return state == State.SERVING;
    } finally {
      lock.unlock();
    }
  }

  /** Returns whether the storage is closed. */
  boolean isClosed() {
    lock.lock();
    try {
      return closing == Closing.DONE;
    } finally {
      lock.unlock();
    }
  }

  /**
   * Refuses new clients until {@link #resume}, ends the present ones when the requests that they
   * have sent are answered, and flushes.
   *
   * @param patience after which clients that are still there are cut; as long again they have to
   *     leave
   * @return false if the storage still works for a client; nothing is flushed then
   * @throws IOException if the storage cannot be flushed, or the export is about to be removed
   */
  public boolean drain(Duration patience) throws IOException {
    if (refuse(State.DRAINED)) {
      closeBackend();
    }
    if (!awaitLeaving(patience)) {
      return false;
    }
    flush();
    return true;
  }

  /** Flushes through a handle of its own, which counts as an opening: see the invariant. */
  private void flush() throws IOException {
    Opening opening = new Opening(Client.ENDS_BY_ITSELF);
    lock.lock();
    try {
      if (state == State.REMOVED) {
        throw new IOException("the export was removed meanwhile");
      }
      openings.add(opening);
    } finally {
      lock.unlock();
    }
    try (Handle handle = backend.open(names.getFirst(), settings.readOnly())) {
      if (handle.capabilities().has(Capability.FLUSH)) {
        handle.flush();
      }
    } finally {
      leave(opening);
    }
  }

  /** Serves clients again after {@link #drain}. */
  public void resume() {
    lock.lock();
    try {
      if (state == State.DRAINED) {
        state = State.SERVING;
        changed.signalAll();
      }
    } finally {
      lock.unlock();
    }
  }

  /** Waits until there are no openings; cuts clients that are there after the patience. */
  private boolean awaitLeaving(Duration patience) {
    if (awaitNone(patience)) {
      return true;
    }
    lock.lock();
    try {
      Logger.warn(
          "{} clients of export {} did not end in time and are closed", openings.size(), words());
      openings.forEach(opening -> opening.client.close());
    } finally {
      lock.unlock();
    }
    return awaitNone(patience);
  }

  private boolean awaitNone(Duration patience) {
    long left = patience.toNanos();
    lock.lock();
    try {
      while (!openings.isEmpty()) {
        if (left <= 0) {
          return false;
        }
        left = changed.awaitNanos(left);
      }
      return true;
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return false;
    } finally {
      lock.unlock();
    }
  }

  /**
   * Closes the backend at the end of the server, when no connection is served any more; waits if
   * another thread is closing it.
   *
   * @throws IOException if data could not be stored
   */
  public void close() throws IOException {
    boolean mine;
    lock.lock();
    try {
      state = State.REMOVED;
      mine = closing == Closing.NOT_BEGUN;
      if (mine) {
        // Perhaps a handle is still open, whose storage hangs: the data of others is to be stored.
        closing = Closing.BEGUN;
      }
    } finally {
      lock.unlock();
    }
    if (mine) {
      closeBackend();
    }
    lock.lock();
    try {
      while (closing != Closing.DONE) {
        changed.awaitUninterruptibly();
      }
      if (closeFailure != null) {
        throw closeFailure;
      }
    } finally {
      lock.unlock();
    }
  }
}
