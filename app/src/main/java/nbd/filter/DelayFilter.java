package nbd.filter;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.List;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Extent;
import nbd.storage.Handle;
import nbd.storage.ReadTarget;

/** Makes storage slow: each call sleeps before it goes on. For experiments. */
public final class DelayFilter extends FilterBackend {
  private final Duration read;
  private final Duration write;
  private final Duration flush;

  /**
   * Wraps a backend.
   *
   * @param read before each read, read-ahead and question for extents
   * @param write before each write, trim and zero
   * @param flush before each flush
   */
  public DelayFilter(Backend next, Duration read, Duration write, Duration flush) {
    super(next);
    this.read = read;
    this.write = write;
    this.flush = flush;
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    return new DelayHandle(next.open(exportName, readOnly));
  }

  private static void sleep(Duration time) throws IOException {
    if (!time.isPositive()) {
      return;
    }
    try {
      Thread.sleep(time);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("the delay was interrupted", e);
    }
  }

  /** A slow handle. What is delayed is never done on the fast path, which must not wait. */
  private final class DelayHandle extends FilterHandle {
    DelayHandle(Handle next) {
      super(next);
    }

    @Override
    public void read(ByteBuffer into, long offset) throws IOException {
      sleep(read);
      next.read(into, offset);
    }

    @Override
    public boolean readNow(ByteBuffer into, long offset) throws IOException {
      return !read.isPositive() && next.readNow(into, offset);
    }

    @Override
    public boolean transferNow(long offset, long length, ReadTarget to) throws IOException {
      return !read.isPositive() && next.transferNow(offset, length, to);
    }

    @Override
    public void cache(long offset, long length) throws IOException {
      sleep(read);
      next.cache(offset, length);
    }

    @Override
    public List<Extent> extents(long offset, long length, int most) throws IOException {
      sleep(read);
      return next.extents(offset, length, most);
    }

    @Override
    public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
      sleep(write);
      next.write(from, offset, flags);
    }

    @Override
    public boolean writeNow(ByteBuffer from, long offset) throws IOException {
      return !write.isPositive() && next.writeNow(from, offset);
    }

    @Override
    public void trim(long offset, long length, CommandFlags flags) throws IOException {
      sleep(write);
      next.trim(offset, length, flags);
    }

    @Override
    public void zero(long offset, long length, CommandFlags flags) throws IOException {
      sleep(write);
      next.zero(offset, length, flags);
    }

    @Override
    public void flush() throws IOException {
      sleep(flush);
      next.flush();
    }
  }
}
