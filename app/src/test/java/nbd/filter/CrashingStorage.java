package nbd.filter;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.locks.LockSupport;
import nbd.backend.Backend;
import nbd.backend.Capabilities;
import nbd.backend.Capability;
import nbd.backend.Fua;
import nbd.backend.Handle;
import nbd.backend.LostException;
import nbd.backend.ThreadModel;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;

/**
 * Storage in another place: it crashes and comes back, with what was flushed and nothing else, and
 * breaks all handles by that. A call that a crash meets may have been done or not.
 */
final class CrashingStorage implements Backend {
  static final Capabilities CAPABILITIES =
      Capabilities.of(
          Fua.NATIVE,
          Capability.WRITE,
          Capability.FLUSH,
          Capability.TRIM,
          Capability.ZERO,
          Capability.FAST_ZERO,
          Capability.MULTI_CONN);

  private final Random random;
  private byte[] cached;
  private byte[] durable;
  private int crashes;
  private boolean down;
  private Capabilities capabilities = CAPABILITIES;
  private int flushes;
  private final List<String> done = new ArrayList<>();

  CrashingStorage(int size, long seed) {
    cached = new byte[size];
    durable = new byte[size];
    random = new Random(seed);
  }

  /** Loses what was not flushed, and all handles. */
  synchronized void crash() {
    cached = durable.clone();
    crashes++;
  }

  /** Loses the handles, and nothing else. */
  synchronized void cut() {
    crashes++;
  }

  /** Whether new handles are refused. */
  synchronized void down(boolean isDown) {
    down = isDown;
  }

  /** Comes back smaller. */
  synchronized void shrink() {
    cached = new byte[cached.length / 2];
    durable = cached.clone();
    crashes++;
  }

  synchronized void change(Capabilities other) {
    capabilities = other;
    crashes++;
  }

  synchronized byte[] durable() {
    return durable.clone();
  }

  synchronized byte[] cached() {
    return cached.clone();
  }

  synchronized int flushes() {
    return flushes;
  }

  /** The writing calls since the last time that this was asked. */
  synchronized List<String> takeDone() {
    List<String> taken = List.copyOf(done);
    done.clear();
    return taken;
  }

  @Override
  public String name() {
    return "crashing";
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public synchronized Handle open(String exportName, boolean readOnly) throws IOException {
    if (down) {
      throw new IOException("it is down");
    }
    return new CrashingHandle(crashes, cached.length, capabilities);
  }

  @Override
  public void close() {
    // Nothing is held.
  }

  private final class CrashingHandle implements Handle {
    private final int openedAt;
    private final long size;
    private final Capabilities has;

    CrashingHandle(int openedAt, long size, Capabilities has) {
      this.openedAt = openedAt;
      this.size = size;
      this.has = has;
    }

    private void call(String what, Runnable work) throws LostException {
      synchronized (CrashingStorage.this) {
        if (openedAt == crashes) {
          done.add(what);
          work.run();
        } else {
          throw new LostException(NbdError.EIO, "it has crashed");
        }
      }
      LockSupport.parkNanos(1);
      synchronized (CrashingStorage.this) {
        if (openedAt != crashes && random.nextBoolean()) {
          throw new LostException(NbdError.EIO, "it has crashed after that");
        }
      }
    }

    @Override
    public long size() {
      return size;
    }

    @Override
    public Capabilities capabilities() {
      return has;
    }

    @Override
    public void read(ByteBuffer into, long offset) throws IOException {
      call("read", () -> into.put(cached, (int) offset, into.remaining()));
    }

    @Override
    public void write(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
      String what = "write " + from.remaining() + " at " + offset;
      call(what, () -> from.get(cached, (int) offset, from.remaining()));
    }

    @Override
    public void flush() throws IOException {
      call(
          "flush",
          () -> {
            durable = cached.clone();
            flushes++;
          });
    }

    @Override
    public void trim(long offset, long length, CommandFlags flags) throws IOException {
      fill("trim ", offset, length, (byte) 0x55);
    }

    @Override
    public void zero(long offset, long length, CommandFlags flags) throws IOException {
      fill("zero ", offset, length, (byte) 0);
    }

    private void fill(String what, long offset, long length, byte with) throws IOException {
      call(
          what + length + " at " + offset,
          () -> Arrays.fill(cached, (int) offset, (int) (offset + length), with));
    }

    @Override
    public void cache(long offset, long length) {
      throw new AssertionError("not used");
    }

    @Override
    public void close() {
      // Nothing is held.
    }
  }
}
