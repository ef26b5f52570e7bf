package nbd.transmission;

import java.io.IOException;
import java.net.SocketException;
import java.nio.ByteBuffer;
import java.nio.channels.GatheringByteChannel;
import java.nio.channels.WritableByteChannel;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.locks.ReentrantLock;
import nbd.posix.Pipe;
import nbd.posix.SpliceSocket;
import nbd.protocol.NbdException;
import nbd.storage.BufferPool;
import nbd.storage.Operation;
import nbd.storage.ReadTarget;
import nbd.storage.Zeroes;
import nbd.threads.VirtualThreads;
import nbd.tls.TlsChannel;
import nbd.transmission.Admission.Pace;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The sending side of a connection. The connection's own thread sends the replies that it has
 * collected, the threads of pending requests send theirs.
 *
 * <p>Invariant: a thread that holds the lock writes a whole number of replies, or the channel is
 * closed afterwards. So no client waits for the rest of a reply.
 */
public final class Replies {
  private static final int PIECE_BYTES = 1 << 16;

  /** A part of a pipe's data that is copied, since the client does not take more at the moment. */
  private static final int WAITING_BYTES = 1 << 12;

  private final WritableByteChannel channel;
  private final Optional<SpliceSocket> spliced;
  private final BufferPool buffers;
  private final ReentrantLock sending;
  private final Pace pace;

  /** True once a reply was sent in part: no other can be sent. Guarded by the lock. */
  private boolean broken;

  /** What is left of replies that {@link #sendSome} has begun. Guarded by the lock. */
  private Optional<Rest> rest = Optional.empty();

  /** True once the socket is fit for transfers. Guarded by the lock. */
  private boolean transfers;

  /** Replies, each from its position, and the pipe that holds the end of the last, if one does. */
  private record Rest(List<ByteBuffer> replies, Optional<Pipe> data) {}

  /** Sends to a channel, and splices nothing. */
  Replies(WritableByteChannel channel, ReentrantLock sending, BufferPool buffers, Pace pace) {
    this(channel, Optional.empty(), sending, buffers, pace);
  }

  /**
   * Sends to a channel.
   *
   * @param channel in blocking mode while the lock is held
   * @param spliced the channel's socket, if data may be spliced to it
   * @param sending the lock of all threads that write to the channel
   * @param pace the client's, in taking replies
   */
  public Replies(
      WritableByteChannel channel,
      Optional<SpliceSocket> spliced,
      ReentrantLock sending,
      BufferPool buffers,
      Pace pace) {
    this.spliced = spliced;
    this.pace = pace;
    this.channel = channel;
    this.sending = sending;
    this.buffers = buffers;
  }

  /** Says whether this side encrypts, so that data cannot go to the socket by itself. */
  boolean encrypts() {
    return channel instanceof TlsChannel;
  }

  /** Returns the client's socket, if data may be spliced. */
  Optional<SpliceSocket> spliced() {
    return spliced;
  }

  /**
   * Sends whole replies.
   *
   * @throws IOException if the peer does not take them; no reply can be sent after that
   */
  void send(ByteBuffer replies) throws IOException {
    sending.lock();
    try {
      write(replies);
    } finally {
      unlock();
    }
  }

  /**
   * Sends whole replies, in as few calls as possible.
   *
   * @param replies each from its position to its limit
   * @throws IOException as {@link #send(ByteBuffer)}
   */
  void send(ByteBuffer[] replies) throws IOException {
    send(replies, Optional.empty());
  }

  /**
   * Sends whole replies, as {@link #send(ByteBuffer[])}.
   *
   * @param data the pipe that holds the end of the last reply, if one does
   */
  void send(ByteBuffer[] replies, Optional<Pipe> data) throws IOException {
    sending.lock();
    try {
      write(replies);
      if (data.isPresent()) {
        begin();
        writeAll(data.get());
        broken = false;
      }
    } finally {
      unlock();
    }
  }

  /**
   * Sends as much of replies as the client takes at the moment; waits neither for the client nor
   * for other threads that send. Whoever sends next begins with the rest.
   *
   * @param data the pipe that holds the end of the last reply, if one does
   * @return whether all was sent; if not, the caller keeps them until it has had them sent by a
   *     thread that may wait
   * @throws IOException as {@link #send(ByteBuffer)}
   */
  boolean sendSome(ByteBuffer[] sent, Optional<Pipe> data) throws IOException {
    // This thread may wait for storage in the middle of a reply, and meet ended requests there.
    if (spliced.isEmpty() || sending.isHeldByCurrentThread() || !sending.tryLock()) {
      return false;
    }
    try {
      if (rest.isPresent()) {
        return false;
      }
      begin();
      boolean done =
          putSome(spliced.get(), sent) && (data.isEmpty() || drainSome(spliced.get(), data.get()));
      rest = done ? Optional.empty() : Optional.of(new Rest(List.of(sent), data));
      broken = false;
      return done;
    } finally {
      unlock();
    }
  }

  /** Sends a part of buffers; true if it was all. */
  private boolean putSome(SpliceSocket socket, ByteBuffer[] sent) throws IOException {
    pace.moved(socket.put(sent));
    return !sent[sent.length - 1].hasRemaining();
  }

  /** Sends a part of what a pipe holds; true if it was all. */
  private boolean drainSome(SpliceSocket socket, Pipe data) throws IOException {
    long moved = 1;
    while (data.held() > 0 && moved > 0) {
      moved = socket.drain(data);
      pace.moved(moved);
    }
    return moved > 0;
  }

  private void write(ByteBuffer[] replies) throws IOException {
    try {
      if (!(channel instanceof GatheringByteChannel gathering)) {
        for (ByteBuffer reply : replies) {
          write(reply);
        }
        return;
      }
      begin();
      pace.begin();
      int first = 0;
      while (first < replies.length) {
        pace.moved(gathering.write(replies, first, replies.length - first));
        while (first < replies.length && !replies[first].hasRemaining()) {
          first++;
        }
      }
      broken = false;
    } finally {
      pace.end();
    }
  }

  private void writeAll(Pipe data) throws IOException {
    SpliceSocket socket = spliced.orElseThrow();
    ByteBuffer piece = null;
    try {
      while (!drainSome(socket, data)) {
        // Writing is the way to wait.
        piece = piece == null ? buffers.takeReserved(WAITING_BYTES) : piece;
        data.take(piece.clear());
        writeAll(piece.flip());
      }
    } finally {
      if (piece != null) {
        buffers.giveBack(piece);
      }
    }
  }

  private void unlock() {
    boolean ends = broken;
    sending.unlock();
    if (ends) {
      end();
    }
  }

  /** The source of data that goes straight to the client; see {@link Operation#transferring}. */
  @FunctionalInterface
  interface Source {
    /** Sends all of the data, or returns false and has begun nothing. */
    boolean transfer(Target to) throws IOException;
  }

  /**
   * Sends whole replies and the header of a READ's reply, and then the READ's data from its source.
   *
   * @param length of the data
   * @param inChunk whether the data is a chunk that may be followed by an error
   * @return whether the source sent the data; if not, nothing was sent
   * @throws PartialReadException if the source failed before it began, or in the middle of a chunk;
   *     the client has to be sent the error
   * @throws IOException if the peer does not take the replies, or if the data could not be read and
   *     a simple reply had begun; no reply can be sent after that
   */
  boolean sendFrom(Source source, long length, ByteBuffer repliesAndHeader, boolean inChunk)
      throws IOException {
    sending.lock();
    try (Target target = new Target(repliesAndHeader)) {
      boolean sent = transfer(source, length, target, inChunk);
      if (sent) {
        broken = false;
      }
      return sent;
    } finally {
      unlock();
    }
  }

  private boolean transfer(Source source, long length, Target target, boolean inChunk)
      throws IOException {
    try {
      boolean sent = source.transfer(target);
      if (sent && target.sent != length) {
        throw new IllegalStateException(target.sent + " of " + length + " bytes were sent");
      }
      return sent;
    } catch (IOException | RuntimeException | Error failure) {
      if (target.begun) {
        if (!inChunk || !target.inData || target.sent > length) {
          throw failure;
        }
        // If it was the peer that failed, this fails as well.
        target.fillUp(length - target.sent);
        broken = false;
      }
      throw new PartialReadException(target.begun, target.sent, failure);
    }
  }

  /** Ends the stream, since it cannot go on; throws nothing. */
  void end() {
    spliced.ifPresent(SpliceSocket::close);
    try {
      channel.close();
    } catch (IOException | RuntimeException | Error failure) {
      Logger.debug(failure);
    }
  }

  /** The client, as the target of a source's data; the lock is held. */
  final class Target implements ReadTarget, AutoCloseable {
    private final ByteBuffer head;
    private boolean begun;
    private boolean inData;
    private long sent;
    private @Nullable ByteBuffer piece;

    private Target(ByteBuffer head) {
      this.head = head;
    }

    @Override
    public WritableByteChannel begin() throws IOException {
      begun = true;
      if (!transfers) {
        VirtualThreads.stopBlocking(channel);
        transfers = true;
      }
      Replies.this.write(head);
      broken = true;
      inData = true;
      return channel;
    }

    @Override
    public void sent(long bytes) {
      sent += bytes;
      pace.moved(bytes);
    }

    @Override
    public ByteBuffer piece() throws NbdException {
      if (piece == null) {
        piece = buffers.takeReserved(PIECE_BYTES);
      }
      return piece;
    }

    @Override
    public void write(ByteBuffer data) throws IOException {
      int count = data.remaining();
      writeAll(data);
      sent += count;
    }

    private void fillUp(long count) throws IOException {
      long left = count;
      while (left > 0) {
        ByteBuffer zeroes = Zeroes.atMost(left);
        left -= zeroes.remaining();
        writeAll(zeroes);
      }
    }

    @Override
    public void close() {
      if (piece != null) {
        buffers.giveBack(piece);
      }
    }
  }

  private void begin() throws IOException {
    if (broken) {
      // The thread that sent that one has logged the reason, mostly that the peer is gone.
      throw new SocketException("an earlier reply could not be sent whole");
    }
    broken = true;
    if (rest.isPresent()) {
      Rest before = rest.get();
      rest = Optional.empty();
      for (ByteBuffer reply : before.replies()) {
        writeAll(reply);
      }
      if (before.data().isPresent()) {
        writeAll(before.data().get());
      }
    }
  }

  private void write(ByteBuffer bytes) throws IOException {
    begin();
    writeAll(bytes);
    broken = false;
  }

  private void writeAll(ByteBuffer bytes) throws IOException {
    pace.begin();
    try {
      while (bytes.hasRemaining()) {
        pace.moved(channel.write(bytes));
      }
    } finally {
      pace.end();
    }
  }
}
