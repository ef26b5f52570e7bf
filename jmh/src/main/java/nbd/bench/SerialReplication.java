package nbd.bench;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;
import nbd.filter.FilterBackend;
import nbd.filter.FilterHandle;
import nbd.protocol.Command;
import nbd.storage.Backend;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/**
 * The simplest filter that emulates multi-conn, for comparison: one lock, dirty flags, and handles
 * that are flushed one after the other under the lock. It does not keep the promise under
 * concurrency.
 */
final class SerialReplication extends FilterBackend {
  private final ReentrantLock lock = new ReentrantLock();
  private final List<SerialHandle> handles = new ArrayList<>();

  SerialReplication(Backend next) {
    super(next);
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    SerialHandle handle = new SerialHandle(next.open(exportName, readOnly));
    lock.lock();
    try {
      handles.add(handle);
    } finally {
      lock.unlock();
    }
    return handle;
  }

  private final class SerialHandle extends FilterHandle {
    private volatile boolean dirty;

    SerialHandle(Handle next) {
      super(next);
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end)
        throws IOException {
      if (operation.command() != Command.FLUSH) {
        dirty = true;
        return next.perform(operation, patience, end);
      }
      if (patience != Patience.WAIT) {
        return Outcome.DECLINED;
      }
      flushAll();
      return Outcome.DONE;
    }

    private void flushAll() throws IOException {
      lock.lock();
      try {
        for (SerialHandle handle : handles) {
          if (handle.dirty) {
            handle.next.flush();
            handle.dirty = false;
          }
        }
      } finally {
        lock.unlock();
      }
    }

    @Override
    public void close() throws IOException {
      lock.lock();
      try {
        handles.remove(this);
      } finally {
        lock.unlock();
      }
      next.close();
    }
  }
}
