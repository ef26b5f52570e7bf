package nbd.backend;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.concurrent.locks.ReentrantLock;
import nbd.posix.PosixException;
import nbd.posix.PosixFile;
import org.tinylog.Logger;

/**
 * Writes single ranges through to the disk (RWF_DSYNC), while the rest of what is dirty stays where
 * it is.
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
  private final ReentrantLock lock = new ReentrantLock();
  private final ArrayDeque<PosixFile> idle = new ArrayDeque<>();
  private volatile boolean missing;

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
  boolean write(ByteBuffer from, long offset) throws IOException {
    if (missing) {
      return false;
    }
    PosixFile file = take();
    try {
      file.writeDurably(from, offset);
      return true;
    } catch (PosixException failure) {
      if (!failure.isUnsupported() && failure.errno() != PosixException.EINVAL) {
        throw failure;
      }
      missing = true;
      Logger.debug("{}: one range cannot be written through: {}", name, failure.getMessage());
      return false;
    } finally {
      giveBack(file);
    }
  }

  private PosixFile take() throws IOException {
    lock.lock();
    try {
      PosixFile free = idle.poll();
      if (free != null) {
        return free;
      }
    } finally {
      lock.unlock();
    }
    return PosixFile.open(path, true, name).orElseThrow();
  }

  private void giveBack(PosixFile file) {
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
      idle.forEach(PosixFile::close);
      idle.clear();
    } finally {
      lock.unlock();
    }
  }
}
