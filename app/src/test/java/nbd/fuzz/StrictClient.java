package nbd.fuzz;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Optional;
import nbd.testing.MemorySocket;

/**
 * A client that sends given bytes, parses them as a server has to, and compares every byte of the
 * answers with the protocol. It shares no code with the server, and knows the protocol's numbers by
 * itself.
 *
 * <p>The bytes come in pieces. Unless the client is hasty, it sends a piece when everything before
 * is answered, so the server has to answer complete requests before it waits for more. The client
 * stops at the first mistake of the server, and {@link #verdict} throws it.
 */
final class StrictClient implements MemorySocket.Peer {
  /** A phase of a session. */
  interface Phase {
    /**
     * Goes as far as the sent and received bytes allow.
     *
     * @return the next phase; this one if it is not over
     */
    Phase advance();

    /** Says whether the client waits for the server. */
    boolean awaits();

    /** Says whether the server has ended without an answer that it owed. */
    default boolean owes() {
      return awaits();
    }

    /** Notes that the connection has ended. */
    default void leave() {
      // Most phases ignore it.
    }

    /** Says whether the server may end the connection now. */
    boolean mayEnd();
  }

  /** The end of a connection, after which the server sends nothing. */
  static final class Over implements Phase {
    private final Backlog received;

    Over(Backlog received) {
      this.received = received;
    }

    @Override
    public Phase advance() {
      check(received.length() == 0, "%d bytes come after the end", received.length());
      return this;
    }

    @Override
    public boolean awaits() {
      return false;
    }

    @Override
    public boolean mayEnd() {
      return true;
    }
  }

  private final Deque<byte[]> toSend;
  private final boolean hasty;
  private final Backlog sent = new Backlog();
  private final Backlog received = new Backlog();
  private final Disk disk;
  private Phase phase;
  private boolean endSent;
  private Optional<AssertionError> complaint = Optional.empty();

  StrictClient(Setup setup, List<byte[]> pieces) {
    this.toSend = new ArrayDeque<>(pieces);
    this.hasty = setup.hasty();
    this.disk = new Disk((int) setup.size());
    this.phase = new StrictOptions(setup, sent, received, disk);
  }

  @SuppressWarnings("AnnotateFormatMethod") // the annotation is in no library that is here
  static void check(boolean right, String what, Object... arguments) {
    if (!right) {
      throw new AssertionError(what.formatted(arguments));
    }
  }

  @SuppressWarnings("ReferenceEquality") // a phase is over when it names another one
  private void advance() {
    if (complaint.isPresent()) {
      return;
    }
    try {
      Phase before;
      do {
        before = phase;
        phase = phase.advance();
      } while (phase != before);
    } catch (AssertionError | RuntimeException wrong) {
      complaint = Optional.of(new AssertionError(this + ": " + wrong.getMessage(), wrong));
    }
  }

  @Override
  public Optional<byte[]> send() {
    if (complaint.isPresent() || phase instanceof Over) {
      return Optional.of(new byte[0]);
    }
    if (!hasty && phase.awaits()) {
      return Optional.empty();
    }
    byte[] next = toSend.isEmpty() ? new byte[0] : toSend.remove();
    endSent = next.length == 0;
    sent.add(next);
    advance();
    return Optional.of(next);
  }

  @Override
  public void receive(byte[] bytes) {
    received.add(bytes);
    advance();
  }

  /** Throws the first mistake of the server, if there was one. */
  void complain() {
    if (complaint.isPresent()) {
      throw complaint.get();
    }
  }

  /**
   * Judges the session after its end.
   *
   * @param content of the storage
   */
  void verdict(byte[] content) {
    complain();
    check(received.length() == 0, "%s: %d bytes come in the end", this, received.length());
    check(endSent || phase.mayEnd(), "%s: the server left", this);
    check(!phase.owes(), "%s: the server owes an answer", this);
    phase.leave();
    disk.compare(content);
  }

  @Override
  public String toString() {
    return phase.toString();
  }
}
