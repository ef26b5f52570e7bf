package nbd.upstream;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Optional;
import nbd.storage.Completion;
import nbd.storage.ExportFacts;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.upstream.Connections.Client;
import nbd.upstream.RangeLocks.Range;
import nbd.upstream.Requests.Beginning;
import nbd.upstream.Requests.Call;
import nbd.upstream.WriteLog.Kind;
import org.jspecify.annotations.Nullable;

/** One client's part in a {@link Session}. */
final class SessionHandle extends Handle {
  private static final ByteBuffer NO_DATA = ByteBuffer.allocate(0);

  private final Session session;
  private final Client client;
  private final SharedByName<Session>.Lease lease;

  /** Where something was begun and not pushed; used by the thread that begins. */
  private @Nullable Handle begunOn;

  SessionHandle(SharedByName<Session>.Lease lease, Client client, boolean readOnly) {
    super(facts(lease.thing(), readOnly));
    this.lease = lease;
    this.session = lease.thing();
    this.client = client;
  }

  /** Gives what all clients share: one flush covers all, whose reads see each other's writes. */
  private static ExportFacts facts(Session session, boolean readOnly) {
    return session.facts.shared(session, readOnly);
  }

  @Override
  public Optional<String> broken() {
    return session.lost();
  }

  @Override
  public Outcome perform(Operation operation, Patience patience, Completion end)
      throws IOException {
    return switch (patience) {
      case AT_ONCE -> Outcome.DECLINED;
      case LATER -> beginHere(operation, end) ? Outcome.BEGUN : Outcome.DECLINED;
      case WAIT -> {
        perform(operation);
        yield Outcome.DONE;
      }
    };
  }

  private void perform(Operation operation) throws IOException {
    Call making = handle -> handle.run(operation.copy());
    switch (operation.command()) {
      case READ -> {
        session.requests.run(client, making);
        operation.data().position(operation.data().limit());
      }
      case WRITE -> {
        change(Kind.WRITE, operation, operation.data(), making);
        operation.data().position(operation.data().limit());
      }
      case TRIM -> change(Kind.TRIM, operation, NO_DATA, making);
      case WRITE_ZEROES -> change(Kind.ZERO, operation, NO_DATA, making);
      case FLUSH -> session.changes.flush(client);
      default -> session.requests.run(client, handle -> handle.run(operation));
    }
  }

  private void change(Kind kind, Operation operation, ByteBuffer data, Call making)
      throws IOException {
    session.changes.change(client, kind, range(operation), data, operation.flags(), making);
  }

  private static Range range(Operation operation) {
    return new Range(operation.offset(), operation.offset() + operation.length());
  }

  private boolean beginHere(Operation operation, Completion end) {
    Beginning beginning = (handle, done) -> handle.begin(operation, done);
    Call again = handle -> handle.run(operation.copy());
    return switch (operation.command()) {
      case READ -> noteBegun(session.requests.begin(client, beginning, again, end));
      case WRITE ->
          noteBegun(
              session.changes.beginWrite(
                  client,
                  range(operation),
                  operation.data(),
                  operation.flags(),
                  beginning,
                  again,
                  end));
      default -> false;
    };
  }

  private boolean noteBegun(@Nullable Handle on) {
    if (on == null) {
      return false;
    }
    if (!on.equals(begunOn)) {
      push();
      begunOn = on;
    }
    return true;
  }

  @Override
  public void push() {
    Handle on = begunOn;
    if (on != null) {
      begunOn = null;
      on.push();
    }
  }

  @Override
  public void close() throws IOException {
    session.leave(client);
    lease.release();
  }
}
