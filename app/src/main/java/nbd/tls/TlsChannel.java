package nbd.tls;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.GatheringByteChannel;
import java.time.Duration;
import java.util.concurrent.locks.ReentrantLock;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLEngineResult;
import javax.net.ssl.SSLEngineResult.HandshakeStatus;
import javax.net.ssl.SSLEngineResult.Status;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLSession;

/**
 * A channel that encrypts what is written to it and sends it over another channel, and decrypts
 * what arrives there. It blocks as the channel below does. One thread may read while others write;
 * readers and writers do not wait for each other.
 *
 * <p>Invariants: {@code reading} guards {@code received}, {@code rest}, {@code ended} and the count
 * of records without data. {@code writing} guards {@code broken} and the order of records on the
 * channel: its holder sends every record that it takes from the engine whole, or nothing is sent
 * any more. A reader takes {@code writing} only to send an alert, and only if it is free: the
 * answer to a TLS 1.3 KeyUpdate is due before the next data that is sent (RFC 8446, 4.6.3), and the
 * engine puts it there. {@link #MOST_WITHOUT_DATA} bounds what the engine keeps until then.
 */
public final class TlsChannel implements ByteChannel, GatheringByteChannel {
  /** The versions of TLS that both sides speak; the NBD protocol asks for 1.2 at least. */
  static final String[] VERSIONS = {"TLSv1.3", "TLSv1.2"};

  /** Two records, so that a whole one fits behind the beginning of another. */
  private static final int RECEIVED_BYTES = 2 * RecordBuffers.RECORD_BYTES;

  /**
   * Limit on consecutive records without data: empty ones, warnings, KeyUpdates. Each costs the
   * peer little. OpenSSL allows 32 empty records, too.
   */
  private static final int MOST_WITHOUT_DATA = 32;

  /** Time after which the count starts again: an idle peer may change its keys now and then. */
  private static final Duration WITHOUT_DATA = Duration.ofSeconds(10);

  /** Longest wait for a peer that does not take the goodbye. */
  private static final Duration GOODBYE = Duration.ofSeconds(1);

  /** Limit on asking the engine for its last records: it may throw earlier failures first. */
  private static final int MOST_LAST_CALLS = 3;

  private static final ByteBuffer NOTHING = ByteBuffer.allocate(0);

  private final ByteChannel plain;
  private final SSLEngine engine;
  private final ReentrantLock reading = new ReentrantLock();
  private final ReentrantLock writing = new ReentrantLock();

  /** Encrypted, from position to limit. */
  private final ByteBuffer received = ByteBuffer.allocate(RECEIVED_BYTES).limit(0);

  /** Decrypted, from position to limit: a record that the reader's buffer had no room for. */
  private ByteBuffer rest = NOTHING.duplicate();

  /** True once the stream has ended. */
  private boolean ended;

  /** Consecutive records without data; see {@link #checkProgress}. */
  private int withoutData;

  private long withoutDataSince = System.nanoTime();
  private boolean dataCame;

  /**
   * True while the engine owes the peer a KeyUpdate. Set after the engine has seen the request, and
   * cleared before the engine makes a record: so it may be true for too long, never too short.
   */
  private volatile boolean answerDue;

  /** True once nothing may be sent: a record was sent in part, or close_notify was sent. */
  private boolean broken;

  private TlsChannel(ByteChannel plain, SSLEngine engine) {
    this.plain = plain;
    this.engine = engine;
  }

  /**
   * Does the handshake.
   *
   * @param plain in blocking mode; used by the result only from now on
   * @throws SSLException if the two cannot agree, which an alert has told the peer, or if it leaves
   */
  static TlsChannel handshake(ByteChannel plain, SSLEngine engine) throws IOException {
    TlsChannel channel = new TlsChannel(plain, engine);
    try {
      channel.handshake();
    } catch (SSLException disagreed) {
      channel.sendLast();
      throw new SSLException(reason(disagreed), disagreed);
    } catch (ClosedChannelException closed) {
      throw closed;
    } catch (IOException broken) {
      // A peer that does not accept a certificate may just leave.
      throw new SSLException("the peer left in the middle of it: " + broken.getMessage(), broken);
    }
    return channel;
  }

  /** Adds the message of the deepest cause, which says what is wrong with a certificate. */
  private static String reason(SSLException disagreed) {
    Throwable deepest = disagreed;
    while (deepest.getCause() != null) {
      deepest = deepest.getCause();
    }
    String first = String.valueOf(disagreed.getMessage());
    String last = String.valueOf(deepest.getMessage());
    return first.contains(last) ? first : first + ": " + last;
  }

  /** Names the version and the ciphers that were agreed on. */
  public String agreed() {
    SSLSession session = engine.getSession();
    return session.getProtocol() + " " + session.getCipherSuite();
  }

  private void handshake() throws IOException {
    engine.beginHandshake();
    while (true) {
      switch (engine.getHandshakeStatus()) {
        case NEED_TASK -> runTasks();
        case NEED_WRAP -> send(new ByteBuffer[0], 0, 0);
        case NEED_UNWRAP, NEED_UNWRAP_AGAIN -> receiveHandshake();
        case FINISHED, NOT_HANDSHAKING -> {
          return;
        }
      }
    }
  }

  private void runTasks() {
    Runnable task = engine.getDelegatedTask();
    while (task != null) {
      task.run();
      task = engine.getDelegatedTask();
    }
  }

  private void receiveHandshake() throws IOException {
    SSLEngineResult result = engine.unwrap(received, NOTHING.duplicate());
    switch (result.getStatus()) {
      case OK -> {}
      case BUFFER_UNDERFLOW -> {
        if (!receive()) {
          throw new SSLException("the peer left in the middle of it");
        }
      }
      case CLOSED -> throw new SSLException("the peer ended TLS in the handshake");
      case BUFFER_OVERFLOW -> throw new SSLException("data came before the handshake ended");
    }
  }

  /** Waits for more encrypted bytes; false at the end of the stream. */
  private boolean receive() throws IOException {
    received.compact();
    try {
      return plain.read(received) >= 0;
    } finally {
      received.flip();
    }
  }

  /**
   * Reads the data of one record, or as much of it as there is room for.
   *
   * @return -1 at the end of the stream, whether the peer announced it or not
   * @throws EOFException if the stream ends in the middle of a record
   * @throws SSLException if a record was changed on its way, or asks for what is not supported
   */
  @Override
  public int read(ByteBuffer into) throws IOException {
    reading.lock();
    try {
      int before = into.position();
      while (into.hasRemaining() && into.position() == before) {
        if (rest.hasRemaining()) {
          int count = Math.min(rest.remaining(), into.remaining());
          into.put(into.position(), rest, rest.position(), count);
          rest.position(rest.position() + count);
          into.position(into.position() + count);
        } else if (ended) {
          return -1;
        } else {
          readRecord(into);
        }
      }
      return into.position() - before;
    } finally {
      reading.unlock();
    }
  }

  private void readRecord(ByteBuffer into) throws IOException {
    SSLEngineResult result = decrypt(into);
    if (result.getStatus() == Status.BUFFER_OVERFLOW) {
      // The engine says so of an incomplete record, too.
      result = decryptToRest();
    }
    switch (result.getStatus()) {
      case OK -> {}
      case CLOSED -> ended = true;
      case BUFFER_UNDERFLOW -> {
        if (!receive()) {
          ended = true;
          if (received.hasRemaining()) {
            throw new EOFException("the stream ended in the middle of a TLS record");
          }
        }
      }
      case BUFFER_OVERFLOW -> throw new SSLException("a TLS record is longer than it may be");
    }
  }

  private SSLEngineResult decryptToRest() throws IOException {
    if (rest.capacity() == 0) {
      rest = ByteBuffer.allocate(RecordBuffers.RECORD_BYTES);
    }
    try {
      return decrypt(rest.clear());
    } finally {
      rest.flip();
    }
  }

  private SSLEngineResult decrypt(ByteBuffer into) throws IOException {
    try {
      SSLEngineResult result = engine.unwrap(received, into);
      boolean stuck =
          result.getStatus() == Status.OK
              && result.bytesConsumed() == 0
              && result.bytesProduced() == 0;
      if (stuck || result.getHandshakeStatus() == HandshakeStatus.NEED_TASK) {
        throw new SSLException("the peer begins another handshake, which is not supported");
      }
      if (result.getStatus() == Status.OK) {
        checkProgress(result);
      }
      return result;
    } catch (SSLException wrong) {
      ended = true;
      sendLast();
      throw wrong;
    }
  }

  /**
   * Bounds consecutive records without data. Their count starts again with data, or after a while,
   * but not while an answer is due: the engine keeps each answer until something is sent.
   */
  private void checkProgress(SSLEngineResult result) throws SSLException {
    if (result.bytesProduced() > 0) {
      dataCame = true;
      return;
    }
    long now = System.nanoTime();
    if (!answerDue && (dataCame || now - withoutDataSince > WITHOUT_DATA.toNanos())) {
      withoutDataSince = now;
      withoutData = 0;
    }
    dataCame = false;
    withoutData++;
    if (withoutData > MOST_WITHOUT_DATA) {
      throw new SSLException("the peer sends records without data, or takes no answer to them");
    }
    if (result.getHandshakeStatus() == HandshakeStatus.NEED_WRAP) {
      answerDue = true;
    }
  }

  /** Writes the whole buffer. */
  @Override
  public int write(ByteBuffer from) throws IOException {
    return (int) write(new ByteBuffer[] {from}, 0, 1);
  }

  /** Writes the buffers whole, in common records. */
  @Override
  public long write(ByteBuffer[] from) throws IOException {
    return write(from, 0, from.length);
  }

  /** Writes the buffers whole, in common records. */
  @Override
  public long write(ByteBuffer[] from, int offset, int length) throws IOException {
    long bytes = remaining(from, offset, length);
    if (bytes > 0) {
      send(from, offset, length);
    }
    return bytes;
  }

  private static long remaining(ByteBuffer[] buffers, int offset, int length) {
    long bytes = 0;
    for (int i = offset; i < offset + length; i++) {
      bytes += buffers[i].remaining();
    }
    return bytes;
  }

  /** Sends the data, or a message of the handshake if there is none. */
  private void send(ByteBuffer[] data, int offset, int length) throws IOException {
    writing.lock();
    try {
      if (broken) {
        throw new ClosedChannelException();
      }
      ByteBuffer records = RecordBuffers.take();
      try {
        do {
          answerDue = false;
          encrypt(data, offset, length, records.clear());
          broken = true;
          writeAll(records.flip());
          broken = false;
        } while (remaining(data, offset, length) > 0);
      } finally {
        RecordBuffers.giveBack(records);
      }
    } finally {
      writing.unlock();
    }
  }

  /** Encrypts until the data or the room for records ends. */
  private void encrypt(ByteBuffer[] data, int offset, int length, ByteBuffer records)
      throws IOException {
    do {
      SSLEngineResult result = engine.wrap(data, offset, length, records);
      switch (result.getStatus()) {
        case OK -> {
          if (result.bytesProduced() == 0) {
            throw new SSLException("TLS waits for another handshake, which is not supported");
          }
        }
        case BUFFER_OVERFLOW -> {
          if (records.position() == 0) {
            throw new SSLException("a TLS record is longer than it may be");
          }
          return;
        }
        case CLOSED -> throw new ClosedChannelException();
        case BUFFER_UNDERFLOW -> throw new IllegalStateException("an underflow of data to send");
      }
    } while (remaining(data, offset, length) > 0);
  }

  private void writeAll(ByteBuffer records) throws IOException {
    while (records.hasRemaining()) {
      plain.write(records);
    }
  }

  /** Sends the engine's last records, an alert or the goodbye, unless a thread is writing. */
  private void sendLast() {
    if (!writing.tryLock()) {
      return;
    }
    try {
      boolean done = broken;
      broken = true;
      ByteBuffer records = RecordBuffers.take();
      try {
        for (int call = 0; call < MOST_LAST_CALLS && !done; call++) {
          done = wrapLast(records) == Status.CLOSED;
        }
        writeAll(records.flip());
      } catch (IOException gone) {
        // The peer is gone.
      } finally {
        RecordBuffers.giveBack(records);
      }
    } finally {
      writing.unlock();
    }
  }

  private Status wrapLast(ByteBuffer records) {
    try {
      return engine.wrap(NOTHING.duplicate(), records).getStatus();
    } catch (SSLException known) {
      return Status.OK;
    }
  }

  @Override
  public boolean isOpen() {
    return plain.isOpen();
  }

  /**
   * Says goodbye (close_notify) unless a thread is writing, and closes the channel below. A peer
   * that takes nothing delays that by a second at most.
   */
  @Override
  public void close() throws IOException {
    try {
      sayGoodbye();
    } finally {
      plain.close();
    }
  }

  private void sayGoodbye() {
    if (plain.isOpen()) {
      Thread goodbye =
          Thread.ofVirtual()
              .start(
                  () -> {
                    engine.closeOutbound();
                    sendLast();
                  });
      try {
        goodbye.join(GOODBYE);
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }
}
