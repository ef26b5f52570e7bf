package nbd.upstream;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import nbd.storage.Handle;
import org.jspecify.annotations.Nullable;

/**
 * The connections of a {@link Session}, each with the number of clients that use it. Guarded by the
 * session's lock, but for the handles.
 */
final class Connections {
  /** Empty only while the session is paused, or when it is lost. */
  private final List<Conn> all = new ArrayList<>();

  /** One connection. */
  static final class Conn {
    final Handle handle;
    private boolean retired;
    private int users;

    Conn(Handle handle) {
      this.handle = handle;
    }

    /** Says whether no request enters it any more. */
    boolean isRetired() {
      return retired;
    }
  }

  /** One client, and the connection that it uses. */
  static final class Client {
    private @Nullable Conn conn;
  }

  boolean isEmpty() {
    return all.isEmpty();
  }

  Conn first() {
    return all.getFirst();
  }

  void addAll(List<Conn> made) {
    all.addAll(made);
  }

  /** Adds a connection for a client of its own. */
  void add(Conn made, Client client) {
    all.add(made);
    use(made, client);
  }

  /** Gives a client without a connection this one. */
  void use(Conn conn, Client client) {
    conn.users++;
    client.conn = conn;
  }

  /** Gives a client a connection that no client uses, if there is one. */
  boolean tryIdle(Client client) {
    for (Conn conn : all) {
      if (conn.users == 0) {
        use(conn, client);
        return true;
      }
    }
    return false;
  }

  /** Returns the client's connection; after a break, the one with the fewest users is its. */
  Conn of(Client client) {
    Conn own = client.conn;
    if (own != null && !own.retired) {
      return own;
    }
    Conn least = all.getFirst();
    for (Conn conn : all) {
      least = conn.users < least.users ? conn : least;
    }
    use(least, client);
    return least;
  }

  /** Lets a client go; gives the connection that is to be closed, if one is of no use any more. */
  Optional<Conn> leave(Client client) {
    Conn conn = client.conn;
    client.conn = null;
    if (conn == null || conn.retired) {
      return Optional.empty();
    }
    conn.users--;
    if (conn.users > 0 || all.size() == 1) {
      return Optional.empty();
    }
    all.remove(conn);
    conn.retired = true;
    return Optional.of(conn);
  }

  /** Gives all connections up: no request enters them any more. */
  List<Conn> retireAll() {
    List<Conn> retired = List.copyOf(all);
    all.clear();
    retired.forEach(conn -> conn.retired = true);
    return retired;
  }
}
