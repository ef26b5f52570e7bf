package nbd.multiconn;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.Executor;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.UnaryOperator;
import nbd.check.HistoryChecker;
import nbd.protocol.CommandFlags;
import nbd.storage.Backend;
import nbd.storage.Handle;
import nbd.testing.ContractBackend;
import nbd.testing.FakeBackend;

/**
 * Clients of one storage through the filter, and a check of the promise to each of them: a read
 * returns data as new as multi-conn demands; after a flush that has succeeded, every write that was
 * answered to any client before it is durable, or its loss was reported, to this client or to
 * clients that were there before this one came.
 */
final class History {
  static final int BLOCK = Long.BYTES;

  private final FakeBackend fake;
  private final ContractBackend contract;
  private final MultiConnFilter filter;
  private final HistoryChecker checker;
  private final List<Client> clients = new CopyOnWriteArrayList<>();
  private final AtomicReference<String> violation = new AtomicReference<>();

  /** The number of each client's first writes that were reported to some client as perhaps lost. */
  private final Map<Client, Integer> reportedToAny = new HashMap<>();

  History(
      FakeBackend fake,
      UnaryOperator<Backend> between,
      MultiConnSettings settings,
      Executor executor) {
    this.fake = fake;
    this.contract = new ContractBackend(fake);
    this.filter = new MultiConnFilter(between.apply(contract), settings, executor);
    this.checker = new HistoryChecker(fake.content().length / BLOCK);
  }

  synchronized Client open(String exportName) throws IOException {
    Handle handle = filter.open(exportName, false);
    Client client = new Client(handle, clients.size());
    clients.add(client);
    return client;
  }

  /**
   * Returns the first breach of the promise, or else of the storage's contract, if there is one.
   */
  Optional<String> violation() {
    return Optional.ofNullable(violation.get()).or(contract.violations().stream()::findFirst);
  }

  private synchronized Map<Client, Integer> answered() {
    Map<Client, Integer> counts = new HashMap<>();
    clients.forEach(client -> counts.put(client, client.answered.size()));
    return counts;
  }

  /** A client, with its calls and the losses reported to it; any thread may call. */
  final class Client {
    final FakeBackend.FakeHandle below;
    private final Handle handle;
    private final int number;
    private final List<HistoryChecker.Write> answered = new CopyOnWriteArrayList<>();
    private final Map<Client, Integer> reported = new HashMap<>(reportedToAny);
    private volatile boolean isClosed;

    private Client(Handle handle, int number) {
      this.handle = handle;
      this.number = number;
      this.below = fake.handles().getLast();
    }

    boolean isOpen() {
      return !isClosed;
    }

    /** Says whether its writes can no longer be flushed, or not with certainty. */
    private boolean isGone() {
      return isClosed || below.isBroken();
    }

    boolean write(int block) {
      HistoryChecker.Write write = checker.beginWrite(number, block, false);
      ByteBuffer data = ByteBuffer.allocate(BLOCK).putLong(write.value()).flip();
      try {
        handle.write(data, (long) block * BLOCK, CommandFlags.NONE);
      } catch (IOException failure) {
        checker.endWrite(write, false);
        return false;
      }
      checker.endWrite(write, true);
      answered.add(write);
      return true;
    }

    boolean read(int block) {
      HistoryChecker.Read read = checker.beginRead(number, block);
      ByteBuffer data = ByteBuffer.allocate(BLOCK);
      try {
        handle.read(data, (long) block * BLOCK);
      } catch (IOException failure) {
        checker.failRead(read);
        return false;
      }
      checker
          .endRead(read, data.getLong(0))
          .ifPresent(found -> violation.compareAndSet(null, found.toString()));
      return true;
    }

    boolean flush() {
      Map<Client, Integer> before = History.this.answered();
      HistoryChecker.Flush flush = checker.beginFlush(number);
      boolean succeeded = true;
      try {
        handle.flush();
      } catch (IOException failure) {
        succeeded = false;
      }
      checker.endFlush(flush, succeeded);
      judge(before, succeeded);
      return succeeded;
    }

    private void judge(Map<Client, Integer> before, boolean succeeded) {
      synchronized (History.this) {
        before.forEach(
            (client, count) -> {
              int durable = client.below.durableWrites();
              if (succeeded && durable < count && reported.getOrDefault(client, 0) < count) {
                violation.compareAndSet(
                    null, "a write of client %d is lost without report".formatted(client.number));
              } else if (!succeeded && client.isGone()) {
                reported.put(client, client.answered.size());
                reportedToAny.put(client, client.answered.size());
                client.answered.stream().skip(durable).forEach(checker::lose);
              }
            });
      }
    }

    void close() {
      isClosed = true;
      try {
        handle.close();
      } catch (IOException lost) {
        // Other clients' flushes report the loss.
      }
    }
  }
}
