package nbd.file;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;

/**
 * An open file on a disk that records the order of events on it, and of its clients' answers, so
 * that {@link PowerLoss} can find out what would have been left at any moment.
 */
@SuppressWarnings("ThreadPriorityCheck") // yields for the sake of more interleavings
class FakeDisk implements OpenFile {
  /** An event. A seq numbers the changes in their order; an op is a client's command. */
  sealed interface Event {
    /** A change is in the page cache. */
    record Changed(int seq, int op, int offset, int length) implements Event {}

    /** That change is on the disk. */
    record Stored(int seq, int offset, int length) implements Event {}

    /** A sync begins. */
    record SyncBegins(int sync) implements Event {}

    /** It has succeeded. */
    record SyncEnds(int sync) implements Event {}

    /** It has failed: what was not on the disk is lost, though the page cache still shows it. */
    record SyncFails(int sync) implements Event {}

    /** A client was told that its command is done. */
    record Answered(int op, int offset, int length, boolean durably) implements Event {}

    /** A client sends a flush. */
    record FlushSent(int flush) implements Event {}

    /** A client was told that its flush is done. */
    record FlushAnswered(int flush) implements Event {}
  }

  /** A test's part in a sync. */
  @FunctionalInterface
  interface Sync {
    /** Acts during a sync; may wait, and throws if the sync fails. */
    void run(int number) throws IOException;
  }

  /** The number of the command that the thread executes. */
  final ThreadLocal<Integer> op = ThreadLocal.withInitial(() -> -1);

  private final byte[] content;
  private final Sync onSync;

  /** Guards the fields below, and the content. */
  private final ReentrantLock lock = new ReentrantLock();

  private final List<Event> events = new ArrayList<>();
  private int seqs;
  private int syncs;

  /** Makes a disk of zeroes. */
  FakeDisk(int size, Sync onSync) {
    content = new byte[size];
    this.onSync = onSync;
  }

  /** Serves this file. */
  FileBackend served(String name) {
    return new FileBackend(name, this, FileSettings.DEFAULT);
  }

  /** Records an event. */
  void happened(Event event) {
    lock.lock();
    try {
      events.add(event);
    } finally {
      lock.unlock();
    }
  }

  List<Event> events() {
    lock.lock();
    try {
      return List.copyOf(events);
    } finally {
      lock.unlock();
    }
  }

  /** Returns the number of syncs that have begun. */
  int syncs() {
    lock.lock();
    try {
      return syncs;
    } finally {
      lock.unlock();
    }
  }

  @Override
  public Traits traits() {
    return new Traits(false, true, true, false, false, 4096);
  }

  @Override
  public long size() {
    return content.length;
  }

  @Override
  public int read(ByteBuffer into, long offset) {
    lock.lock();
    try {
      int length = into.remaining();
      into.put(content, (int) offset, length);
      return length;
    } finally {
      lock.unlock();
    }
  }

  private int change(int offset, byte[] data) {
    lock.lock();
    try {
      System.arraycopy(data, 0, content, offset, data.length);
      int seq = ++seqs;
      events.add(new Event.Changed(seq, op.get(), offset, data.length));
      return seq;
    } finally {
      lock.unlock();
    }
  }

  @Override
  public void write(ByteBuffer from, long offset) {
    byte[] data = new byte[from.remaining()];
    from.get(data);
    // A write is not atomic: two changes.
    int half = data.length / 2;
    change((int) offset, java.util.Arrays.copyOf(data, half));
    Thread.yield();
    change((int) offset + half, java.util.Arrays.copyOfRange(data, half, data.length));
  }

  @Override
  public boolean writeDurably(ByteBuffer from, long offset) throws IOException {
    byte[] data = new byte[from.remaining()];
    from.get(data);
    int seq = change((int) offset, data);
    Thread.yield();
    happened(new Event.Stored(seq, (int) offset, data.length));
    return true;
  }

  @Override
  public void sync() throws IOException {
    int number;
    lock.lock();
    try {
      number = ++syncs;
      events.add(new Event.SyncBegins(number));
    } finally {
      lock.unlock();
    }
    try {
      onSync.run(number);
    } catch (IOException failure) {
      happened(new Event.SyncFails(number));
      throw failure;
    }
    happened(new Event.SyncEnds(number));
  }

  @Override
  public void discard(long offset, long length) {
    change((int) offset, new byte[(int) length]);
  }

  @Override
  public boolean zero(long offset, long length, boolean mayPunch, boolean mustBeFast) {
    if (mayPunch) {
      change((int) offset, new byte[(int) length]);
    }
    return mayPunch;
  }

  @Override
  public void close() {
    // Nothing is held.
  }
}
