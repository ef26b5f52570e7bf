package nbd.backend;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayDeque;
import java.util.concurrent.locks.ReentrantLock;
import nbd.posix.PosixFile;
import org.tinylog.Logger;

/**
 * Writes single ranges through to the disk (O_DSYNC, which is RWF_DSYNC for each write), while the
 * rest of what is dirty stays where it is.
 *
 * <p>By the JDK's channels, since a virtual thread may wait in these: the JDK adds a carrier
 * meanwhile, as it does for no other write. By a platform thread of {@link BlockingCalls} each
 * write takes two ways between threads more, which cost as much as the write on a fast disk.
 *
 * <p>Each write has an opening of the file to itself meanwhile. The kernel tells every opening once
 * that something was lost; of two writes on one opening, the one whose data was written could be
 * told, and the one whose data was lost be answered with success.
 *
 * <p>Invariant, under the lock: an opening is idle here, or in the hands of exactly one write.
 */
final class DurableWrites implements AutoCloseable {
  private final Path path;
  private final String name;
  private final TypicalTime time = new TypicalTime();
  private final ReentrantLock lock = new ReentrantLock();
  private final ArrayDeque<FileChannel> idle = new ArrayDeque<>();

  /**
   * Opens nothing yet.
   *
   * @param path that leads to the same file for certain
   */
  DurableWrites(Path path, String name) {
    this.path = path;
    this.name = name;
  }

  /** As {@link OpenFile#writeDurably}. */
  void write(ByteBuffer from, long offset) throws IOException {
    ByteBuffer whole = from.duplicate();
    FileChannel file = take();
    try {
      long begin = System.nanoTime();
      long at = offset;
      while (from.hasRemaining()) {
        at += file.write(from, at);
      }
      time.took(System.nanoTime() - begin);
    } catch (IOException failure) {
      findReason(whole, offset);
      throw failure;
    } finally {
      giveBack(file);
    }
  }

  /** Whether they have taken little time lately. */
  boolean areQuick() {
    return time.isShort();
  }

  /** Channels do not tell the error's number: what failed is tried again by the call that does. */
  private void findReason(ByteBuffer whole, long offset) throws IOException {
    try (PosixFile file = PosixFile.open(path, true, name).orElseThrow()) {
      file.writeDurably(whole, offset);
    }
  }

  private FileChannel take() throws IOException {
    lock.lock();
    try {
      FileChannel free = idle.poll();
      if (free != null) {
        return free;
      }
    } finally {
      lock.unlock();
    }
    return FileChannel.open(path, StandardOpenOption.WRITE, StandardOpenOption.DSYNC);
  }

  private void giveBack(FileChannel file) {
    lock.lock();
    try {
      idle.push(file);
    } finally {
      lock.unlock();
    }
  }

  /** Called when no write runs. */
  @Override
  public void close() {
    lock.lock();
    try {
      idle.forEach(this::close);
      idle.clear();
    } finally {
      lock.unlock();
    }
  }

  private void close(FileChannel file) {
    try {
      file.close();
    } catch (IOException failure) {
      Logger.debug("{}: {}", name, failure.getMessage());
    }
  }
}
