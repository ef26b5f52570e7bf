package nbd.check;

import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.storage.ThreadModel;

/**
 * Storage in memory with a cache of reads and of writes for each connection, which says that it is
 * multi-conn: a flush of any connection writes back the writes of all, and empties all caches. With
 * {@link Fault#NONE} that is true, else it has one fault.
 *
 * <p>A sector's bytes are never changed: another array takes its place. {@code lock} guards all.
 */
final class FaultyStorage implements Backend {
  static final int SECTOR = 512;
  private static final int SECTORS = 1 << 14;

  private static final long GAP_NANOS = 100_000;
  private static final Capabilities CAPABILITIES =
      Capabilities.of(
          Capability.WRITE,
          Capability.FLUSH,
          Capability.FUA,
          Capability.TRIM,
          Capability.ZERO,
          Capability.EXTENTS,
          Capability.MULTI_CONN);

  private final Fault fault;
  private final ReentrantLock lock = new ReentrantLock();
  private final List<Connection> connections = new CopyOnWriteArrayList<>();

  /** The sectors that every connection sees that has none of its own. */
  private final byte[][] stored;

  /** The sectors of connections of odd numbers, with {@link Fault#TWO_ORDERS}. */
  private final byte[][] replica;

  /** The sectors that survive a crash. */
  private final byte[][] durable;

  /** The durable sectors before the present ones. */
  private final byte[][] outdated;

  private int opened;

  /** The way in which the promise is broken. */
  enum Fault {
    NONE,
    /** A flush does nothing. */
    FLUSH_IGNORED,
    /** A flush writes back its own connection's writes only, and empties its cache only. */
    FLUSH_OF_ONE,
    /** Writes that come during a flush count as flushed by it. */
    CLEANED_LATE,
    /** A flush empties its own connection's cache of reads only. */
    STALE_CACHE,
    /** A read in flight during a flush puts older data into the cache. */
    STALE_READ,
    /** A connection's unflushed writes are lost when it is closed. */
    LOST_AT_CLOSE,
    /** A write with FUA is like any other. */
    FUA_IGNORED,
    /** Zeroing and trimming leave sectors as they are outside of whole blocks of 4 KiB. */
    NOT_ZEROED,
    /** A write of several sectors ends in the middle of its last one. */
    TORN,
    /** Two copies are written in an order of their own each. */
    TWO_ORDERS,
    /** After a crash some sectors hold what was there before the last flush. */
    RESURRECTED,
    /** All extents say zero. */
    LYING_EXTENTS
  }

  FaultyStorage(Fault fault) {
    this.fault = fault;
    stored = new byte[SECTORS][SECTOR];
    replica = stored.clone();
    durable = stored.clone();
    outdated = stored.clone();
  }

  /** Loses what is not durable. Called when no connection is open. */
  void crash() {
    lock.lock();
    try {
      if (fault == Fault.RESURRECTED) {
        for (int sector = 0; sector < durable.length; sector += 2) {
          durable[sector] = outdated[sector];
        }
      }
      System.arraycopy(durable, 0, stored, 0, stored.length);
    } finally {
      lock.unlock();
    }
  }

  private void harden(int sector) {
    if (!Arrays.equals(durable[sector], stored[sector])) {
      outdated[sector] = durable[sector];
      durable[sector] = stored[sector];
    }
  }

  /** Lets others go first, as storage does that takes its time. The caller holds the lock. */
  private void gap() {
    lock.unlock();
    LockSupport.parkNanos(GAP_NANOS);
    lock.lock();
  }

  @Override
  public String name() {
    return "storage with the fault " + fault;
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) {
    lock.lock();
    try {
      Connection connection = new Connection(opened);
      opened++;
      connections.add(connection);
      return connection;
    } finally {
      lock.unlock();
    }
  }

  @Override
  public void close() {
    // Nothing is held.
  }

  /** One connection, and its caches. */
  private final class Connection extends Handle {
    private final byte[][] seen;
    private final byte[][] unseen;
    private final Map<Integer, byte[]> written = new HashMap<>();
    private final Map<Integer, byte[]> cached = new HashMap<>();
    private boolean isDirty;

    /** Counts how often the cache of reads was emptied. */
    private int emptied;

    private Connection(int number) {
      super(
          new ExportFacts(
              (long) stored.length * SECTOR,
              new BlockSizes(SECTOR, 4096, 32 << 20),
              CAPABILITIES,
              "",
              FaultyStorage.class));
      boolean second = fault == Fault.TWO_ORDERS && number % 2 == 1;
      this.seen = second ? replica : stored;
      this.unseen = second ? stored : replica;
    }

    @Override
    public Outcome perform(Operation operation, Patience patience, Completion end) {
      if (patience != Patience.WAIT) {
        return Outcome.DECLINED;
      }
      lock.lock();
      try {
        switch (operation.command()) {
          case READ -> read(operation);
          case WRITE, WRITE_ZEROES, TRIM -> change(operation);
          case FLUSH -> flushAll();
          case BLOCK_STATUS -> operation.answer(extents(operation.length()));
          default -> throw new AssertionError(operation.command());
        }
      } finally {
        lock.unlock();
      }
      return Outcome.DONE;
    }

    private List<Extent> extents(long length) {
      return List.of(fault == Fault.LYING_EXTENTS ? Extent.hole(length) : Extent.data(length));
    }

    private void read(Operation operation) {
      int sector = first(operation);
      while (operation.data().hasRemaining()) {
        operation.data().put(sector(sector));
        sector++;
      }
    }

    private byte[] sector(int sector) {
      byte[] own = written.getOrDefault(sector, cached.get(sector));
      if (own != null) {
        return own;
      }
      byte[] fetched = seen[sector];
      int before = emptied;
      gap();
      if (fault != Fault.TWO_ORDERS && (before == emptied || fault == Fault.STALE_READ)) {
        cached.put(sector, fetched);
      }
      return written.getOrDefault(sector, fetched);
    }

    private void change(Operation operation) {
      int first = first(operation);
      int count = (int) (operation.length() / SECTOR);
      ByteBuffer data =
          operation.command() == Command.WRITE
              ? operation.data()
              : ByteBuffer.allocate((int) operation.length());
      for (int sector = first; sector < first + count; sector++) {
        byte[] bytes = new byte[SECTOR];
        data.get(bytes);
        boolean inWholeBlock = sector / 8 * 8 >= first && sector / 8 * 8 + 8 <= first + count;
        if (fault == Fault.TORN && count > 1 && sector == first + count - 1) {
          byte[] old = sector(sector);
          System.arraycopy(old, SECTOR / 2, bytes, SECTOR / 2, SECTOR / 2);
        }
        if (fault != Fault.NOT_ZEROED || operation.command() == Command.WRITE || inWholeBlock) {
          store(sector, bytes, operation.fua());
        }
      }
    }

    private void store(int sector, byte[] bytes, boolean fua) {
      cached.remove(sector);
      if (fault == Fault.TWO_ORDERS) {
        seen[sector] = bytes;
        gap();
        unseen[sector] = bytes;
        harden(sector);
      } else if (fua && fault != Fault.FUA_IGNORED) {
        written.remove(sector);
        stored[sector] = bytes;
        harden(sector);
        connections.forEach(each -> each.forget(sector));
      } else {
        written.put(sector, bytes);
        isDirty = true;
      }
    }

    private void forget(int sector) {
      cached.remove(sector);
      emptied++;
    }

    private void flushAll() {
      if (fault == Fault.FLUSH_IGNORED) {
        return;
      }
      for (Connection each : connections) {
        if (each != this && fault == Fault.FLUSH_OF_ONE) {
          continue;
        }
        each.writeBack();
        if (each == this || fault != Fault.STALE_CACHE) {
          each.cached.clear();
          each.emptied++;
        }
      }
      for (int sector = 0; sector < stored.length; sector++) {
        harden(sector);
      }
    }

    private void writeBack() {
      if (!isDirty) {
        return;
      }
      written.forEach((sector, bytes) -> stored[sector] = bytes);
      written.clear();
      if (fault == Fault.CLEANED_LATE) {
        gap();
      }
      isDirty = false;
    }

    @Override
    public void close() {
      lock.lock();
      try {
        connections.remove(this);
        if (fault != Fault.LOST_AT_CLOSE) {
          writeBack();
        }
      } finally {
        lock.unlock();
      }
    }

    private static int first(Operation operation) {
      return (int) (operation.offset() / SECTOR);
    }
  }
}
