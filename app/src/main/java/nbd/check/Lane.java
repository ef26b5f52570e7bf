package nbd.check;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.SplittableRandom;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;
import nbd.check.Driver.Episode;
import nbd.check.HistoryChecker.Flush;
import nbd.check.HistoryChecker.Read;
import nbd.check.HistoryChecker.Write;
import nbd.check.Step.Kind;
import nbd.client.NbdClient;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Capability;
import nbd.storage.Completion;
import nbd.storage.LostException;
import nbd.storage.Operation;
import org.jspecify.annotations.Nullable;

/**
 * One of a history's connections, and the next one in its place when it has been closed. During an
 * episode it belongs to one thread, between two episodes to the driver's.
 */
final class Lane implements Runnable {
  /** Limit on the requests in flight. */
  static final int MOST_IN_FLIGHT = 16;

  /** Limit on the sectors of a request. */
  private static final int MOST_SECTORS = 4;

  private static final int CLOSED_IN = 2048;
  private static final int CUT_IN = 8192;
  private static final int FUA_IN = 8;

  private final Driver driver;
  private final HistoryChecker judge;
  private final Target target;
  private final SplittableRandom random;
  private final List<Slot> slots = new ArrayList<>();

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition isFree = lock.newCondition();

  /** The slots of this episode that have no request in flight; guarded by the lock. */
  private final ArrayDeque<Slot> free = new ArrayDeque<>(MOST_IN_FLIGHT);

  /** The number of free slots that the lane's thread waits for; guarded by the lock. */
  private int wanted;

  private @Nullable NbdClient client;

  /** True if the connection ends by the check's own doing, so that lost requests are no fault. */
  private volatile boolean isEnding;

  /** The number of the connection, which no other one has or had. */
  private int connection;

  private Episode episode = Episode.NONE;
  private Role role = Role.ALL;
  private int fuaOften;
  private @Nullable IOException failure;

  /** The commands that a connection uses during an episode. */
  private enum Role {
    ALL(8, 8, 2, 2),
    NO_FLUSHES(8, 8, 2, 0),
    READS(1, 0, 0, 0),
    WRITES(0, 8, 1, 0),
    READS_AND_FLUSHES(8, 0, 0, 1),
    WRITES_AND_FLUSHES(0, 8, 1, 1);

    private static final Role[] VALUES = values();

    private final int reads;
    private final int writes;
    private final int zeroes;
    private final int flushes;

    Role(int reads, int writes, int zeroes, int flushes) {
      this.reads = reads;
      this.writes = writes;
      this.zeroes = zeroes;
      this.flushes = flushes;
    }

    Kind pick(SplittableRandom random) {
      int drawn = random.nextInt(reads + writes + zeroes + flushes);
      if (drawn < reads) {
        return Kind.READ;
      }
      if (drawn < reads + writes) {
        return Kind.WRITE;
      }
      if (drawn < reads + writes + zeroes) {
        return random.nextBoolean() ? Kind.ZERO : Kind.TRIM;
      }
      return Kind.FLUSH;
    }
  }

  Lane(Driver driver, SplittableRandom random) {
    this.driver = driver;
    this.judge = driver.judge();
    this.target = driver.target();
    this.random = random;
    for (int i = 0; i < MOST_IN_FLIGHT; i++) {
      slots.add(new Slot());
    }
  }

  /** Connects. */
  void open() throws IOException {
    open(() -> false);
  }

  /** Connects as soon as the server can be reached, if there is no connection that works. */
  void openAgain() throws IOException {
    NbdClient before = client;
    if (before == null || before.broken().isPresent()) {
      close();
      open(() -> !driver.isStopped());
    }
  }

  private void open(BooleanSupplier goesOn) throws IOException {
    client = target.connect(goesOn);
    connection = driver.nextConnection();
    isEnding = false;
  }

  /** Disconnects in order. */
  void close() {
    NbdClient before = client;
    if (before != null) {
      isEnding = true;
      before.close();
      client = null;
      judge.close(connection, false);
    }
  }

  /** Closes the socket while requests are in flight. */
  private void cut() {
    client().push();
    isEnding = true;
    client().cut();
    awaitAll();
    client = null;
    judge.close(connection, true);
  }

  /** Throws if the connection has survived a restart of the server. */
  void requireLoss() throws IOException {
    failure = null;
    if (client().broken().isEmpty()) {
      throw new IOException(
          "--restart-command did not end the server: a connection to it still works");
    }
  }

  /** Prepares for an episode. */
  void begin(Episode next) throws IOException {
    openAgain();
    episode = next;
    isEnding = next.endsByRestart();
    role = next.alike() ? Role.ALL : Role.VALUES[random.nextInt(Role.VALUES.length)];
    fuaOften = random.nextInt(3);
    lock.lock();
    try {
      free.clear();
      free.addAll(slots.subList(0, next.depth()));
    } finally {
      lock.unlock();
    }
  }

  /** Takes part in an episode to its end. */
  @Override
  public void run() {
    try {
      for (int left = episode.operations();
          left > 0 && driver.goesOn(episode) && client().broken().isEmpty();
          left--) {
        if (!episode.endsByRestart() && random.nextInt(CLOSED_IN) == 0) {
          awaitAll();
          close();
          openAgain();
        } else if (!episode.endsByRestart() && random.nextInt(CUT_IN) == 0) {
          cut();
          openAgain();
        } else {
          Slot slot = take();
          slot.begin(slot.next());
        }
      }
      awaitAll();
    } catch (IOException failed) {
      failure = failed;
    }
  }

  /** Throws the failure of the episode, if it failed. */
  void rethrow() throws IOException {
    IOException failed = failure;
    failure = null;
    if (failed != null) {
      throw failed;
    }
  }

  private NbdClient client() {
    return Objects.requireNonNull(client);
  }

  /** Makes a request and waits for the reply. */
  void runOne() {
    Slot slot = take();
    slot.run(slot.next());
  }

  /** Reads every sector. */
  void readAll() {
    for (int sector = 0; sector < Driver.SECTORS; sector += MOST_SECTORS) {
      Slot slot = take();
      slot.run(slot.read(sector, MOST_SECTORS));
    }
  }

  /** Flushes. */
  void flush() {
    Slot slot = take();
    slot.run(slot.flush());
  }

  /** Waits until every request of the episode has ended. */
  private void awaitAll() {
    client().push();
    awaitFree(episode.depth());
  }

  /** Takes a free slot; if there is none, waits until there are so many that a push pays. */
  private Slot take() {
    lock.lock();
    try {
      Slot slot = free.poll();
      if (slot != null) {
        return slot;
      }
    } finally {
      lock.unlock();
    }
    client().push();
    awaitFree(episode.batch());
    return take();
  }

  private void awaitFree(int count) {
    lock.lock();
    try {
      wanted = count;
      while (free.size() < count) {
        isFree.awaitUninterruptibly();
      }
    } finally {
      lock.unlock();
    }
  }

  private void release(Slot slot) {
    lock.lock();
    try {
      free.add(slot);
      if (free.size() >= wanted) {
        isFree.signal();
      }
    } finally {
      lock.unlock();
    }
  }

  /** Room for a request in flight. */
  private final class Slot implements Completion {
    private final ByteBuffer buffer = ByteBuffer.allocateDirect(MOST_SECTORS * target.unit());
    private @Nullable Request request;

    /** Chooses a request, and tells the judge that it is about to be sent. */
    Operation next() {
      Kind kind = offered(role.pick(random));
      if (kind == Kind.FLUSH) {
        return flush();
      }
      int sectors = 1 + random.nextInt(Math.min(MOST_SECTORS, episode.width()));
      int sector = episode.first() + random.nextInt(episode.width() - sectors + 1);
      long offset = target.offsetOf(sector);
      int bytes = sectors * target.unit();
      if (kind == Kind.READ) {
        return read(sector, sectors);
      }
      boolean fua = random.nextInt(FUA_IN) < fuaOften && can(Capability.FUA);
      CommandFlags flags = fua ? CommandFlags.of(CommandFlag.FUA) : CommandFlags.NONE;
      Write write = judge.beginWrite(connection, kind, sector, sectors, fua);
      request = write;
      return switch (kind) {
        case ZERO -> Operation.onRange(Command.WRITE_ZEROES, offset, bytes, flags);
        case TRIM -> Operation.onRange(Command.TRIM, offset, bytes, flags);
        default -> {
          buffer.clear().limit(bytes);
          Tags.fill(buffer, target.unit(), write.value());
          yield Operation.write(buffer, offset, flags);
        }
      };
    }

    Operation read(int sector, int sectors) {
      request = judge.beginRead(connection, sector, sectors);
      buffer.clear().limit(sectors * target.unit());
      return Operation.read(buffer, target.offsetOf(sector));
    }

    Operation flush() {
      request = judge.beginFlush(connection);
      return Operation.flush();
    }

    private Kind offered(Kind wanted) {
      return switch (wanted) {
        case FLUSH -> can(Capability.FLUSH) ? wanted : Kind.READ;
        case ZERO -> can(Capability.ZERO) ? wanted : Kind.WRITE;
        case TRIM -> can(Capability.TRIM) ? wanted : Kind.WRITE;
        default -> wanted;
      };
    }

    private boolean can(Capability capability) {
      return client().capabilities().has(capability);
    }

    /** Makes a request and waits for the reply. */
    void run(Operation operation) {
      begin(operation);
      awaitAll();
    }

    /** Makes a request, which is sent at the latest when the lane waits. */
    void begin(Operation operation) {
      try {
        if (!client().begin(operation, this)) {
          client().run(operation);
          done(null);
        }
      } catch (IOException failed) {
        done(failed);
      }
    }

    @Override
    public void done(@Nullable IOException failed) {
      try {
        end(failed);
      } finally {
        release(this);
      }
    }

    /** Tells the judge of the reply. */
    private void end(@Nullable IOException failed) {
      boolean succeeded = failed == null;
      switch (request) {
        case Read read when succeeded -> {
          List<List<Long>> data = Tags.read(buffer.rewind(), target.unit());
          judge.endRead(read, data).ifPresent(driver::found);
          driver.countRead(data.size());
        }
        case Read read -> judge.failRead(read);
        case Flush flush -> judge.endFlush(flush, succeeded);
        case Write write -> judge.endWrite(write, succeeded);
        case null -> throw new IllegalStateException("a request ended that was not made");
      }
      if (!isEnding || !(failed instanceof LostException)) {
        driver.ended(failed);
      }
    }
  }
}
