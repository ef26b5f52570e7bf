package nbd.testing;

import java.io.IOException;

/** The ways in which a client goes away. */
public enum Leave {
  /** Both directions end. */
  CLOSE {
    @Override
    public void now(RawClient client) throws IOException {
      client.close();
    }
  },
  /** It sends no more, and waits for the server to end. */
  HALF_CLOSE {
    @Override
    public void now(RawClient client) throws IOException {
      client.halfClose();
    }
  },
  /** The connection is reset. */
  RESET {
    @Override
    public void now(RawClient client) throws IOException {
      client.reset();
    }
  };

  /** Leaves. */
  public abstract void now(RawClient client) throws IOException;
}
