package nbd.filter;

import java.io.IOException;
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
 * Keeps a backend's thread model, or a stricter one, for every caller: the server, and filters that
 * flush one connection's handle for another. It belongs directly above the backend.
 *
 * <p>Callers wait in the order in which they came. A thread that holds the lock waits for nothing
 * but the backend, and only such a thread keeps others waiting; so no two wait for each other.
 */
public final class SerializeFilter extends FilterBackend {
  private final ThreadModel model;
  private final Semaphore connections;
  private final ReentrantLock allRequests = new ReentrantLock(true);

  /** Allows the operations that both the backend and this thread model allow. */
  public SerializeFilter(Backend next, ThreadModel requested) {
    super(next);
    this.model = next.threadModel().and(requested);
    boolean alone = model == ThreadModel.SERIALIZE_CONNECTIONS;
    this.connections = new Semaphore(alone ? 1 : Integer.MAX_VALUE, true);
  }

  @Override
  public ThreadModel threadModel() {
    return model;
  }

  /** Opens a handle; where connections are serialized, after the one before has been closed. */
  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    if (model == ThreadModel.PARALLEL) {
      return next.open(exportName, readOnly);
    }
    boolean each = model == ThreadModel.SERIALIZE_REQUESTS;
    ReentrantLock lock = each ? new ReentrantLock(true) : allRequests;
    boolean opened = false;
    connections.acquireUninterruptibly();
    lock.lock();
    try {
      Handle handle = new SerializedHandle(next.open(exportName, readOnly), lock);
      opened = true;
      return handle;
    } finally {
      lock.unlock();
      if (!opened) {
        connections.release();
      }
    }
  }

  /** A handle whose operations run one at a time, so that each of them may have to wait. */
  private final class SerializedHandle extends FilterHandle {
    private final ReentrantLock lock;

    SerializedHandle(Handle next, ReentrantLock lock) {
      super(next);
      this.lock = lock;
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
        connections.release();
      }
    }
  }
}
