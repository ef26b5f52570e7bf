package nbd.filter;

import java.io.IOException;
import java.util.Optional;
import java.util.concurrent.Semaphore;
import java.util.concurrent.locks.ReentrantLock;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.storage.ThreadModel;

/**
 * Keeps a backend's thread model, or a stricter one, whoever calls: the server, or a filter that
 * flushes one connection's handle for another. It belongs directly above the backend.
 *
 * <p>Callers wait in the order in which they came. While one waits it holds no other lock of this
 * filter's, and who holds one waits for the backend alone, so no two can wait for each other.
 */
public final class SerializeFilter extends FilterBackend {
  private final ThreadModel model;
  private final Semaphore connections = new Semaphore(1, true);
  private final ReentrantLock allRequests = new ReentrantLock(true);

  /** Allows what both the backend and this thread model allow. */
  public SerializeFilter(Backend next, ThreadModel requested) {
    super(next);
    this.model = next.threadModel().and(requested);
  }

  @Override
  public ThreadModel threadModel() {
    return model;
  }

  /** Opens a handle; where connections are serialized, when the one before has been closed. */
  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    return switch (model) {
      case PARALLEL -> next.open(exportName, readOnly);
      case SERIALIZE_REQUESTS ->
          new SerializedHandle(
              next.open(exportName, readOnly), new ReentrantLock(true), Optional.empty());
      case SERIALIZE_ALL_REQUESTS ->
          new SerializedHandle(openAlone(exportName, readOnly), allRequests, Optional.empty());
      case SERIALIZE_CONNECTIONS -> openOnly(exportName, readOnly);
    };
  }

  private Handle openOnly(String exportName, boolean readOnly) throws IOException {
    connections.acquireUninterruptibly();
    boolean opened = false;
    try {
      Handle handle =
          new SerializedHandle(
              openAlone(exportName, readOnly), allRequests, Optional.of(connections));
      opened = true;
      return handle;
    } finally {
      if (!opened) {
        connections.release();
      }
    }
  }

  private Handle openAlone(String exportName, boolean readOnly) throws IOException {
    allRequests.lock();
    try {
      return next.open(exportName, readOnly);
    } finally {
      allRequests.unlock();
    }
  }

  /** A handle whose operations come one at a time; so all of them may have to wait. */
  private static final class SerializedHandle extends FilterHandle {
    private final ReentrantLock lock;
    private final Optional<Semaphore> connections;

    SerializedHandle(Handle next, ReentrantLock lock, Optional<Semaphore> connections) {
      super(next);
      this.lock = lock;
      this.connections = connections;
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws IOException {
      if (patience != Patience.WAIT) {
        return Outcome.DECLINED;
      }
      lock.lock();
      try {
        return next.perform(operation, patience, end);
      } finally {
        lock.unlock();
      }
    }

    @Override
    public void close() throws IOException {
      lock.lock();
      try {
        next.close();
      } finally {
        lock.unlock();
        connections.ifPresent(Semaphore::release);
      }
    }
  }
}
