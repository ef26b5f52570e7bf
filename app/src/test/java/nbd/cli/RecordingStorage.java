package nbd.cli;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.ThreadModel;
import nbd.testing.PlainHandle;

/**
 * Storage that takes note of what flushes and FUA it gets, and of what is durable by them. Without
 * multi-conn a flush covers what its own handle has written; with it, everything.
 */
final class RecordingStorage implements Backend {
  static final int SECTOR = 512;
  private static final int SECTORS = 4096;

  private final Capabilities capabilities;
  private final ReentrantLock lock = new ReentrantLock();
  private final byte[] content = new byte[SECTORS * SECTOR];
  private final List<RecordingHandle> handles = new ArrayList<>();
  private final BitSet durable = new BitSet();
  private int flushes;
  private int fuas;

  RecordingStorage(Capabilities capabilities) {
    this.capabilities = capabilities;
  }

  /** How many flushes came. */
  int flushes() {
    return flushes;
  }

  /** How many commands with FUA came. */
  int fuas() {
    return fuas;
  }

  /** Whether what was written last in this sector would survive a loss of power. */
  boolean isDurable(int sector) {
    lock.lock();
    try {
      return durable.get(sector);
    } finally {
      lock.unlock();
    }
  }

  @Override
  public String name() {
    return "recording storage";
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) {
    lock.lock();
    try {
      RecordingHandle handle = new RecordingHandle();
      handles.add(handle);
      return handle;
    } finally {
      lock.unlock();
    }
  }

  @Override
  public void close() {
    // Nothing is held.
  }

  private final class RecordingHandle extends PlainHandle {
    RecordingHandle() {
      super(new ExportFacts(content.length, capabilities));
    }

    private final BitSet unflushed = new BitSet();

    private void changed(long offset, long length, CommandFlags flags) {
      int from = (int) (offset / SECTOR);
      int to = (int) ((offset + length + SECTOR - 1) / SECTOR);
      if (flags.has(CommandFlag.FUA)) {
        fuas++;
        durable.set(from, to);
      } else {
        durable.clear(from, to);
        unflushed.set(from, to);
      }
    }

    @Override
    protected void doRead(ByteBuffer into, long offset) {
      lock.lock();
      try {
        into.put(content, (int) offset, into.remaining());
      } finally {
        lock.unlock();
      }
    }

    @Override
    protected void doWrite(ByteBuffer from, long offset, CommandFlags flags) {
      lock.lock();
      try {
        int length = from.remaining();
        from.get(content, (int) offset, length);
        changed(offset, length, flags);
      } finally {
        lock.unlock();
      }
    }

    @Override
    protected void doFlush() {
      lock.lock();
      try {
        flushes++;
        for (RecordingHandle handle :
            capabilities.has(Capability.MULTI_CONN) ? handles : List.of(this)) {
          durable.or(handle.unflushed);
          handle.unflushed.clear();
        }
      } finally {
        lock.unlock();
      }
    }

    @Override
    protected void doTrim(long offset, long length, CommandFlags flags) {
      throw new AssertionError("nothing is trimmed");
    }

    @Override
    protected void doZero(long offset, long length, CommandFlags flags) {
      throw new AssertionError("nothing is zeroed");
    }

    @Override
    protected void doCache(long offset, long length) {
      // It is at hand.
    }

    @Override
    public void close() {
      // Its unflushed writes stay unflushed.
    }
  }
}
