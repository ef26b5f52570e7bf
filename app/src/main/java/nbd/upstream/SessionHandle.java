package nbd.upstream;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Optional;
import nbd.protocol.Command;
import nbd.storage.Completion;
import nbd.storage.Handle;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;
import nbd.storage.SharedByName;
import nbd.upstream.Connections.Client;
import nbd.upstream.Requests.Request;
import org.jspecify.annotations.Nullable;

/** One client's handle on a {@link Session}. */
final class SessionHandle extends Handle {
  private final Session session;
  private final Client client;
  private final SharedByName<Session>.Lease lease;

  /** The connection with operations that were begun and not pushed; for the thread that begins. */
  private @Nullable Handle begunOn;

  SessionHandle(SharedByName<Session>.Lease lease, Client client, boolean readOnly) {
    // One flush covers all clients, whose reads see each other's writes.
    super(lease.thing().facts.shared(lease.thing(), readOnly));
    this.lease = lease;
    this.session = lease.thing();
    this.client = client;
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
      case LATER -> noteBegun(begun(operation, end)) ? Outcome.BEGUN : Outcome.DECLINED;
      case WAIT -> {
        perform(operation);
        yield Outcome.DONE;
      }
    };
  }

  private void perform(Operation operation) throws IOException {
    Command command = operation.command();
    if (command.writes()) {
      session.changes.change(client, operation);
    } else if (command == Command.FLUSH) {
      session.changes.flush(client);
    } else {
      session.requests.run(client, new Request(operation));
    }
    if (command == Command.READ || command == Command.WRITE) {
      ByteBuffer data = operation.data();
      data.position(data.limit());
    }
  }

  private @Nullable Handle begun(Operation operation, Completion end) {
    return switch (operation.command()) {
      case READ -> session.requests.begin(client, new Request(operation), end);
      case WRITE -> session.changes.begin(client, operation, end);
      default -> null;
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
