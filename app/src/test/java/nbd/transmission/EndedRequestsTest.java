package nbd.transmission;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assumptions.assumeThat;

import java.io.EOFException;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
import nbd.posix.Pipe;
import nbd.posix.SpliceSocket;
import nbd.testing.Running;
import nbd.threads.Postponed;
import nbd.threads.VirtualThreads;
import nbd.transmission.Admission.Reservation;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Replies over a socket, sent by the thread that has them as far as the client takes them. */
@Timeout(300)
final class EndedRequestsTest {
  private static final long SEED = Long.getLong("nbd.seed", System.nanoTime());

  /** More than the socket takes before its peer reads. */
  private static final int LONG = 1 << 20;

  /** The head of a reply here: the length of what follows, and a number that it is made of. */
  private static final int HEAD = 2 * Long.BYTES;

  @TempDir private Path directory;

  private final Admission server = new Admission(64 << 20, Duration.ofMinutes(1));
  private final Admission.Share share = server.open(() -> {});
  private final ReentrantLock sending = new ReentrantLock();
  private final ConcurrentLinkedQueue<Throwable> unsent = new ConcurrentLinkedQueue<>();
  private SocketChannel client;
  private SocketChannel socket;
  private Optional<SpliceSocket> spliced = Optional.empty();
  private Replies replies;
  private EndedRequests ended;

  @BeforeEach
  void connect() throws IOException {
    UnixDomainSocketAddress address = UnixDomainSocketAddress.of(directory.resolve("socket"));
    try (ServerSocketChannel listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      listener.bind(address);
      client = SocketChannel.open(address);
      socket = listener.accept();
    }
    socket.setOption(StandardSocketOptions.SO_SNDBUF, 1 << 16);
    spliced = SpliceSocket.of(socket);
    assumeThat(spliced).as("this system splices").isPresent();
    VirtualThreads.stopBlocking(socket);
    replies = new Replies(socket, spliced, sending, server.buffers(), share.sending());
    ended =
        new EndedRequests(
            replies,
            why -> {
              unsent.add(why);
              replies.end();
            });
  }

  @AfterEach
  void disconnect() throws IOException {
    spliced.ifPresent(SpliceSocket::close);
    socket.close();
    client.close();
  }

  private static ByteBuffer reply(int length, long number, boolean isDirect) {
    int bytes = HEAD + length;
    ByteBuffer reply = isDirect ? ByteBuffer.allocateDirect(bytes) : ByteBuffer.allocate(bytes);
    reply.putLong(length).putLong(number);
    while (reply.hasRemaining()) {
      reply.put((byte) number);
    }
    return reply.flip();
  }

  private static ByteBuffer[] array(ByteBuffer... replies) {
    return replies;
  }

  private ByteBuffer read(int bytes) throws IOException {
    ByteBuffer into = ByteBuffer.allocate(bytes);
    while (into.hasRemaining()) {
      if (client.read(into) < 0) {
        throw new EOFException("the stream ended after %d bytes".formatted(into.position()));
      }
    }
    return into.flip();
  }

  /** Reads a reply, checks its content, and returns its number. */
  private long readReply() throws IOException {
    ByteBuffer head = read(HEAD);
    int length = (int) head.getLong();
    long number = head.getLong();
    ByteBuffer data = read(length);
    while (data.hasRemaining()) {
      assertThat(data.get()).as("reply %d", number).isEqualTo((byte) number);
    }
    return number;
  }

  private Reservation reservation() {
    return share.tryAdmit(Admission.REQUEST_BYTES).orElseThrow();
  }

  /** Puts the data of a reply into an empty pipe, and returns the head of that reply. */
  private static ByteBuffer intoPipe(Pipe pipe, int length, long number) throws IOException {
    ByteBuffer whole = reply(length, number, true);
    ByteBuffer head = ByteBuffer.allocateDirect(HEAD).put(whole.slice(0, HEAD)).flip();
    pipe.put(whole.position(HEAD));
    return head;
  }

  @Test
  void aReplyThatTheClientTakesIsSentByTheCallersThread() throws IOException {
    assertThat(replies.sendSome(array(reply(0, 1, false)), Optional.empty())).isTrue();
    assertThat(replies.sendSome(array(reply(10_000, 2, true)), Optional.empty())).isTrue();
    Reservation request = reservation();
    ByteBuffer head = intoPipe(request.takePipe().orElseThrow(), 8192, 3);
    assertThat(replies.sendSome(array(head), request.pipe())).isTrue();
    request.release();
    for (long number = 1; number <= 3; number++) {
      assertThat(readReply()).isEqualTo(number);
    }
  }

  @Test
  void inTheMiddleOfAReplyTheCallerSendsNothing() throws IOException {
    ByteBuffer reply = reply(0, 1, true);
    sending.lock();
    try {
      Running.start(() -> assertThat(replies.sendSome(array(reply), Optional.empty())).isFalse())
          .join();
      assertThat(replies.sendSome(array(reply), Optional.empty())).as("its own").isFalse();
    } finally {
      sending.unlock();
    }
    assertThat(reply.position()).isZero();
    replies.send(reply(0, 2, true));
    assertThat(readReply()).isEqualTo(2);
  }

  @Test
  void theRestOfAReplyGoesBeforeAnyOtherReply() throws IOException {
    ByteBuffer first = reply(LONG, 1, true);
    assertThat(replies.sendSome(array(first), Optional.empty())).isFalse();
    assertThat(first.position()).isPositive().isLessThan(first.limit());
    assertThat(replies.sendSome(array(reply(0, 9, true)), Optional.empty())).isFalse();
    Running second = Running.start(() -> replies.send(reply(0, 2, true)));
    assertThat(readReply()).isEqualTo(1);
    assertThat(readReply()).isEqualTo(2);
    second.join();
    replies.send(first);
    replies.send(reply(0, 3, true));
    assertThat(readReply()).isEqualTo(3);
  }

  @Test
  void theRestOfWhatAPipeHoldsGoesBeforeAnyOtherReply() throws IOException {
    Reservation request = reservation();
    ByteBuffer head = intoPipe(request.takePipe().orElseThrow(), Pipe.MOST_BYTES, 1);
    assertThat(replies.sendSome(array(head), request.pipe())).isFalse();
    assertThat(head.hasRemaining()).isFalse();
    Running second = Running.start(() -> replies.send(reply(0, 2, true)));
    assertThat(readReply()).isEqualTo(1);
    assertThat(readReply()).isEqualTo(2);
    second.join();
    replies.send(new ByteBuffer[] {head}, request.pipe());
    request.release();
    replies.send(reply(0, 3, true));
    assertThat(readReply()).isEqualTo(3);
  }

  @Test
  void aClientThatIsGoneEndsTheStream() throws IOException {
    client.close();
    assertThatThrownBy(() -> replies.sendSome(array(reply(0, 1, true)), Optional.empty()))
        .isInstanceOf(IOException.class);
    assertThatThrownBy(() -> replies.send(reply(0, 2, true))).hasMessageContaining("earlier");
    assertThat(socket.isOpen()).isFalse();
  }

  /** A virtual thread sends them when the client reads, and their memory comes back then. */
  @Test
  void addingRepliesDoesNotWaitForAClientThatTakesNone() throws IOException {
    for (int i = 0; i < 3; i++) {
      int number = i;
      ended.add(reservation(), () -> reply(LONG, number, true));
    }
    assertThat(share.isEmpty()).isFalse();
    for (int i = 0; i < 3; i++) {
      assertThat(readReply()).isEqualTo(i);
    }
    share.awaitNone();
    assertThat(unsent).isEmpty();
  }

  @Test
  void repliesToRequestsThatEndTogetherWaitForEachOther() throws IOException {
    client.configureBlocking(false);
    try (Postponed work = Postponed.begin()) {
      for (int i = 0; i < 100; i++) {
        int number = i;
        ended.add(reservation(), () -> reply(10, number, number % 2 == 0));
      }
      assertThat(client.read(ByteBuffer.allocate(1))).isZero();
      work.run();
      share.awaitNone();
    }
    client.configureBlocking(true);
    for (int i = 0; i < 100; i++) {
      assertThat(readReply()).isEqualTo(i);
    }
  }

  @Test
  void theMemoryOfRepliesToAClientThatIsGoneComesBack() throws IOException {
    ended.add(reservation(), () -> reply(LONG, 0, true));
    Reservation request = reservation();
    ByteBuffer head = intoPipe(request.takePipe().orElseThrow(), 8192, 1);
    ended.add(request, () -> head);
    client.close();
    share.awaitNone();
    ended.add(reservation(), () -> reply(0, 2, true));
    share.awaitNone();
    assertThat(unsent).isNotEmpty();
  }

  /** Threads add replies of every kind, others send their own, and the client reads at its pace. */
  @Test
  void everyReplyArrivesOnceAndWholeWhoeverSendsIt() throws Exception {
    int threads = 4;
    int each = 300;
    AtomicLong numbers = new AtomicLong();
    List<Running> callers = new ArrayList<>();
    for (int thread = 0; thread < threads; thread++) {
      SplittableRandom random = new SplittableRandom(SEED + thread);
      callers.add(
          Running.start(
              () -> {
                try (Postponed work = Postponed.begin()) {
                  for (int i = 0; i < each; i++) {
                    sendOne(random, numbers.getAndIncrement());
                    if (random.nextInt(4) == 0) {
                      work.run();
                    }
                  }
                }
              }));
    }
    boolean[] arrived = new boolean[threads * each];
    SplittableRandom random = new SplittableRandom(SEED - 1);
    for (int i = 0; i < arrived.length; i++) {
      if (random.nextInt(50) == 0) {
        Thread.sleep(1);
      }
      int number = (int) readReply();
      assertThat(arrived[number]).as("seed %d: reply %d again", SEED, number).isFalse();
      arrived[number] = true;
    }
    for (Running caller : callers) {
      caller.join();
    }
    share.awaitNone();
    assertThat(unsent).isEmpty();
  }

  private void sendOne(SplittableRandom random, long number) throws IOException {
    int length = random.nextInt(1 << random.nextInt(18));
    switch (random.nextInt(4)) {
      case 0 -> replies.send(reply(length, number, true));
      case 1 -> {
        Reservation request = share.admit(Admission.REQUEST_BYTES);
        Optional<Pipe> pipe = request.takePipe();
        if (pipe.isPresent()) {
          ByteBuffer head = intoPipe(pipe.get(), length, number);
          ended.add(request, () -> head);
        } else {
          ended.add(request, () -> reply(length, number, true));
        }
      }
      default -> {
        boolean isDirect = random.nextBoolean();
        Reservation request = share.admit(Admission.REQUEST_BYTES);
        ended.add(request, () -> reply(length, number, isDirect));
      }
    }
  }
}
