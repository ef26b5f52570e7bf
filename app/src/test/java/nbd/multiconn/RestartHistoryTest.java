package nbd.multiconn;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.concurrent.ConcurrentHashMap;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.storage.Backend;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.LostException;
import nbd.storage.ThreadModel;
import nbd.testing.PlainHandle;
import org.junit.jupiter.api.Test;

/**
 * Clients of a server that is restarted at random, and forgets what was not flushed, while its
 * connections notice at once or by their next call. After each flush that succeeded: whatever
 * anybody had been answered is durable, or this client was told of its loss, or the client that
 * came before it was. One call after the other; the property {@code nbd.history.seed} repeats a run
 * that failed.
 */
class RestartHistoryTest {
  private static final long SEED = Long.getLong("nbd.history.seed", System.nanoTime());
  private static final int RUNS = 1_000;
  private static final int COMMANDS = 30;

  @Test
  void whatARestartLostIsToldToEverybodyOnceWhereTheServerIsMultiConn() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      play(true, MultiConnMode.AUTO, tracking, "");
    }
  }

  @Test
  void whatARestartLostIsToldAcrossNamesWhereTheFlushIsEmulated() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      play(true, MultiConnMode.EMULATE, tracking, "other");
    }
  }

  @Test
  void whatARestartLostIsToldToEverybodyOnceWhereTheServerIsNotMultiConn() throws IOException {
    for (TrackDirty tracking : TrackDirty.values()) {
      play(false, MultiConnMode.AUTO, tracking, "other");
    }
  }

  private static void play(
      boolean multiConn, MultiConnMode mode, TrackDirty tracking, String otherName)
      throws IOException {
    System.out.println("-Dnbd.history.seed=" + SEED + " for " + mode + " " + tracking);
    SplittableRandom random = new SplittableRandom(SEED);
    for (int run = 0; run < RUNS; run++) {
      Play play = new Play(multiConn, mode, tracking, otherName, random.split());
      for (int i = 0; i < COMMANDS; i++) {
        play.command();
      }
      play.end();
    }
  }

  /** One server, its clients, and what each of these has a right to believe. */
  private static final class Play {
    private final Server server;
    private final MultiConnFilter filter;
    private final String otherName;
    private final SplittableRandom random;
    private final List<Client> clients = new ArrayList<>();
    private final Set<Integer> answered = new HashSet<>();
    private final Set<Integer> toldToAny = new HashSet<>();
    private final StringBuilder history = new StringBuilder();

    Play(
        boolean multiConn,
        MultiConnMode mode,
        TrackDirty tracking,
        String otherName,
        SplittableRandom random) {
      this.server = new Server(multiConn);
      this.filter =
          new MultiConnFilter(server, new MultiConnSettings(mode, tracking, false, false));
      this.otherName = otherName;
      this.random = random;
    }

    /** A client, and the losses that it was told of. */
    private final class Client {
      final Handle handle;
      final Connection below;
      final Set<Integer> told = new HashSet<>(toldToAny);

      Client(String name) throws IOException {
        handle = filter.open(name, false);
        below = server.connections.getLast();
      }
    }

    void command() throws IOException {
      int what = random.nextInt(100);
      if (clients.size() < 2 || (what < 12 && clients.size() < 5)) {
        history.append(" open");
        clients.add(new Client(random.nextInt(3) == 0 ? otherName : ""));
      } else if (what < 20) {
        history.append(" restart");
        server.restart(random);
      } else if (what < 25) {
        int number = random.nextInt(clients.size());
        history.append(" cut").append(number);
        clients.get(number).below.isCut = true;
        clients.get(number).below.knows = random.nextBoolean();
      } else if (what < 32) {
        int number = random.nextInt(clients.size());
        history.append(" close").append(number);
        close(clients.remove(number));
      } else if (what < 65) {
        int number = random.nextInt(clients.size());
        history.append(" write").append(number);
        write(clients.get(number));
      } else {
        int number = random.nextInt(clients.size());
        history.append(" flush").append(number);
        flush(clients.get(number));
      }
    }

    private void close(Client client) {
      try {
        client.handle.close();
      } catch (IOException lost) {
        // The others are told.
      }
    }

    private void write(Client client) {
      int next = server.writes;
      try {
        client.handle.write(ByteBuffer.allocate(1), 0, CommandFlags.NONE);
        answered.add(next);
      } catch (IOException broken) {
        history.append('!');
      }
    }

    private boolean flush(Client client) {
      try {
        client.handle.flush();
      } catch (IOException failure) {
        history.append('!');
        for (int write : answered) {
          if (!server.durable.contains(write) && server.isAtAnEnd(write)) {
            client.told.add(write);
            toldToAny.add(write);
          }
        }
        return false;
      }
      Set<Integer> missing = new HashSet<>(answered);
      missing.removeAll(server.durable);
      missing.removeAll(client.told);
      assertThat(missing).as("lost, and not told:%s", history).isEmpty();
      return true;
    }

    /** Whoever comes now is told what nobody was, and goes on. */
    void end() throws IOException {
      for (int i = 0; i < 2; i++) {
        Client last = new Client("");
        clients.add(last);
        history.append(" open and flush");
        boolean first = flush(last);
        assertThat(first || flush(last)).as("never succeeds:%s", history).isTrue();
      }
      clients.forEach(this::close);
      assertThat(server.faults).as("%s", history).isEmpty();
    }
  }

  /**
   * Answers a write when it has it, and makes it durable by a flush of any connection or its own.
   */
  private static final class Server implements Backend {
    private final Capabilities capabilities;
    private final boolean multiConn;
    private final List<Connection> connections = new ArrayList<>();
    private final Set<Integer> durable = ConcurrentHashMap.newKeySet();
    private final List<String> faults = new ArrayList<>();
    private int writes;
    private int starts;

    Server(boolean multiConn) {
      this.multiConn = multiConn;
      Capabilities has = Capabilities.of(Capability.WRITE, Capability.FLUSH);
      capabilities = multiConn ? has.with(Capability.MULTI_CONN) : has;
    }

    void restart(SplittableRandom random) {
      starts++;
      for (Connection connection : connections) {
        if (connection.isBroken()) {
          connection.cached.clear();
          connection.knows |= random.nextBoolean();
        }
      }
    }

    /** Whether nobody can make it durable any more, or nobody can be sure of that. */
    boolean isAtAnEnd(int write) {
      return connections.stream()
          .noneMatch(
              connection ->
                  !connection.isBroken() && !connection.closed && connection.wrote(write));
    }

    @Override
    public String name() {
      return "server";
    }

    @Override
    public ThreadModel threadModel() {
      return ThreadModel.PARALLEL;
    }

    @Override
    public Handle open(String exportName, boolean readOnly) {
      Connection made = new Connection(this);
      connections.add(made);
      return made;
    }

    @Override
    public void close() {
      // Nothing is held.
    }
  }

  /** A connection to the server as it was when it was opened. */
  private static final class Connection extends PlainHandle {
    private final Server server;
    private final int start;
    private final Set<Integer> cached = new HashSet<>();
    private final Set<Integer> written = new HashSet<>();
    private boolean isCut;
    private boolean knows;
    private boolean closed;

    Connection(Server server) {
      super(new ExportFacts(1, server.capabilities));
      this.server = server;
      this.start = server.starts;
    }

    boolean isBroken() {
      return isCut || start != server.starts;
    }

    boolean wrote(int write) {
      return written.contains(write);
    }

    private void check() throws LostException {
      if (closed) {
        server.faults.add("a call on a closed handle");
      }
      if (isBroken()) {
        knows = true;
        throw new LostException(NbdError.EIO, "the connection broke");
      }
    }

    @Override
    public Optional<String> broken() {
      return knows && isBroken() ? Optional.of("the connection broke") : Optional.empty();
    }

    @Override
    protected void doRead(ByteBuffer into, long offset) throws IOException {
      check();
    }

    @Override
    protected void doWrite(ByteBuffer from, long offset, CommandFlags flags) throws IOException {
      check();
      written.add(server.writes);
      cached.add(server.writes);
      server.writes++;
    }

    @Override
    protected void doFlush() throws IOException {
      check();
      for (Connection other : server.multiConn ? server.connections : List.of(this)) {
        if (other.start == start) {
          server.durable.addAll(other.cached);
          other.cached.clear();
        }
      }
    }

    @Override
    public void close() {
      closed = true;
    }
  }
}
