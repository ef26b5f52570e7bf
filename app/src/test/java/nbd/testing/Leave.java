package nbd.testing;

import java.io.IOException;

/** The ways in which a client goes away. */
public enum Leave {
  /** A close of both directions. */
  CLOSE {
    @Override
    public void now(RawClient client) throws IOException {
      client.close();
    }
  },
  /** An end of the direction to the server only. */
  HALF_CLOSE {
    @Override
    public void now(RawClient client) throws IOException {
      client.halfClose();
    }
  },
  /** A reset of the connection; on a Unix socket an ordinary close. */
  RESET {
    @Override
    public void now(RawClient client) throws IOException {
      client.reset();
    }
  };

  /** Ends the connection of a client in this way. */
  public abstract void now(RawClient client) throws IOException;
}
