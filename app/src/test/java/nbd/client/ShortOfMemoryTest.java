package nbd.client;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Optional;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.testing.MemorySocket;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Failures without memory left to describe them. */
@Timeout(300)
final class ShortOfMemoryTest {
  private static final class Indescribable extends RuntimeException {
    private static final long serialVersionUID = 1;

    @Override
    public String getMessage() {
      throw new InternalError("on purpose");
    }
  }

  private static final class IndescribableIo extends IOException {
    private static final long serialVersionUID = 1;

    @Override
    public String getMessage() {
      throw new InternalError("on purpose");
    }
  }

  /** A peer that sends nothing, and fails when it receives something. */
  private static final class FailingPeer implements MemorySocket.Peer {
    @Override
    public Optional<byte[]> send() {
      return Optional.empty();
    }

    @Override
    public void receive(byte[] bytes) {
      throw new Indescribable();
    }
  }

  private final MemorySocket socket = new MemorySocket(new FailingPeer(), 1 << 16);
  private final Wire wire = new Wire(socket);
  private final Link link = new Link("server", wire, Duration.ZERO);

  private Request request() {
    return new Request(
        Thread.currentThread(),
        /* whenDone= */ null,
        Command.READ,
        CommandFlags.NONE,
        link.nextCookie(),
        0,
        1,
        ByteBuffer.allocate(1),
        /* pipe= */ null,
        /* extents= */ null);
  }

  @Test
  void aLeaderThatFailsLeavesNoRequestInTheQueue() {
    SendQueue queue = new SendQueue(wire, link, false);
    Request first = request();
    assertThat(link.add(first)).isNull();
    first.answered();
    queue.sendAndAwait(first);
    assertThat(first.isDone()).as("sent, as far as it will be").isTrue();
    assertThat(link.broken()).isNotNull();
    assertThat(socket.isClosed()).isTrue();
    Request second = request();
    assertThat(link.add(second)).isNotNull();
    second.answered();
    queue.sendAndAwait(second);
    assertThat(second.isDone()).as("somebody leads").isTrue();
  }

  @Test
  void aConnectionThatFailsIsClosed() {
    link.fail(new IndescribableIo());
    assertThat(link.broken()).isNotNull();
    assertThat(socket.isClosed()).isTrue();
  }
}
