package nbd.conformance;

import java.io.Closeable;
import java.io.IOException;
import java.util.List;
import nbd.protocol.TransmissionFlag;
import nbd.testing.ChunkClient.Told;
import nbd.testing.RawClient;
import nbd.testing.RawClient.Export;

/** A client in the transmission phase that checks every byte, whatever form replies have. */
interface Talk extends Closeable {
  /** What answers a request. */
  interface Outcome {
    /** The error, or 0. */
    int error();

    /** What was read; empty if that failed. */
    byte[] data();

    /** What BLOCK_STATUS told. */
    List<Told> extents();
  }

  /** What was agreed on. */
  Replies replies();

  /** What the server said of the export. */
  Export export();

  /** The bytes below. */
  RawClient raw();

  /** Sends a request whose header has this length, and what follows it; gives the cookie. */
  long send(int flags, int type, long offset, long length, byte... payload) throws IOException;

  /** Waits for the answer to a request. */
  Outcome await(long cookie) throws IOException;

  /** Says goodbye, and waits for the end. */
  void disconnect() throws IOException;

  /** Whether the server has said that it can do it. */
  default boolean told(TransmissionFlag flag) {
    return (export().flags() & flag.bit()) != 0;
  }

  /** The flags that every WRITE has to have. */
  default int writeFlags() {
    return replies() == Replies.EXTENDED ? Rules.PAYLOAD_LEN : 0;
  }

  /** Whether a payload follows a request with these flags. */
  default boolean bringsPayload(int flags, int type) {
    return replies() == Replies.EXTENDED
        ? (flags & Rules.PAYLOAD_LEN) != 0
        : type == RawClient.WRITE;
  }

  /** Sends a request, with the payload that it has to have, and waits for its answer. */
  default Outcome call(int flags, int type, long offset, long length) throws IOException {
    byte[] payload = new byte[bringsPayload(flags, type) ? (int) length : 0];
    return await(send(flags, type, offset, length, payload));
  }

  /** Reads; it has to succeed. */
  default byte[] read(long offset, int length) throws IOException {
    Outcome outcome = call(0, RawClient.READ, offset, length);
    Rules.expect(outcome, 0, "READ of %d at %d".formatted(length, offset));
    return outcome.data();
  }

  /** Writes; it has to succeed. */
  default void write(int flags, long offset, byte... data) throws IOException {
    long cookie = send(flags | writeFlags(), RawClient.WRITE, offset, data.length, data);
    Rules.expect(await(cookie), 0, "WRITE of %d at %d".formatted(data.length, offset));
  }

  /** A request that has to succeed. */
  default Outcome succeed(int flags, int type, long offset, long length) throws IOException {
    Outcome outcome = call(flags, type, offset, length);
    Rules.expect(outcome, 0, "type %d flags %x of %d at %d".formatted(type, flags, length, offset));
    return outcome;
  }
}
