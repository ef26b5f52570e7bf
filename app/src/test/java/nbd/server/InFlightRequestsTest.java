package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import nbd.filter.FilterBackend;
import nbd.memory.MemoryBackend;
import nbd.protocol.Command;
import nbd.storage.Handle;
import nbd.storage.Patience;
import nbd.testing.Bytes;
import nbd.testing.Eventually;
import nbd.testing.FakeBackend;
import nbd.testing.HookedBackend;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Requests that take long, fail, or are in flight when the client says goodbye. */
@Timeout(300)
final class InFlightRequestsTest {
  private static final int SIZE = 1 << 16;

  /** Sends a request for the first byte; a flush has no range. */
  private static void start(RawClient client, Command command, long cookie) throws IOException {
    int length = command == Command.FLUSH ? 0 : 1;
    byte[] payload = new byte[command == Command.WRITE ? 1 : 0];
    client.request(0, command.code(), cookie, 0, length, payload);
  }

  private static void finish(RawClient client, Command command, long cookie) throws IOException {
    client.expectReply(0, cookie);
    if (command == Command.READ) {
      client.take(1);
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"READ", "WRITE", "FLUSH", "TRIM", "CACHE", "WRITE_ZEROES"})
  void aSlowCommandHoldsNothingElseUp(Command slow) throws Exception {
    CountDownLatch begun = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    FakeBackend fake =
        new FakeBackend(SIZE)
            .hook(
                call -> {
                  if (call.command() == slow && call.offset() == 0) {
                    begun.countDown();
                    Eventually.await(go);
                  }
                });
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client();
        RawClient other = server.client()) {
      start(client, slow, 1);
      Eventually.await(begun);
      for (RawClient quick : new RawClient[] {client, other, server.witness()}) {
        byte[] data = Bytes.random(8, 100);
        quick.write(300, data);
        assertThat(quick.read(300, 100)).isEqualTo(data);
        quick.call(0, 0, RawClient.TRIM, 500, 1).call(0, 0, RawClient.WRITE_ZEROES, 300, 100);
        if (slow != Command.FLUSH) {
          quick.flush();
        }
      }
      go.countDown();
      finish(client, slow, 1);
      client.disconnect();
    }
  }

  @Test
  void manySlowCommandsDoNotHoldUpAnotherConnection() throws Exception {
    CountDownLatch begun = new CountDownLatch(100);
    CountDownLatch go = new CountDownLatch(1);
    FakeBackend fake =
        new FakeBackend(SIZE)
            .hook(
                call -> {
                  if (call.command() == Command.FLUSH) {
                    begun.countDown();
                    Eventually.await(go);
                  }
                });
    try (TestServer server = TestServer.of(fake);
        RawClient client = server.client();
        RawClient other = server.client()) {
      for (int i = 0; i < 100; i++) {
        start(client, Command.FLUSH, i);
      }
      Eventually.await(begun);
      other.write(0, new byte[10]).read(0, 10);
      other.disconnect();
      go.countDown();
      for (int i = 0; i < 100; i++) {
        client.expectReply(0);
      }
      client.disconnect();
    }
  }

  /** A mistake in storage that answers at once costs the request, not the connection. */
  @ParameterizedTest
  @ValueSource(ints = {512, 300_000})
  void aMistakeOnTheFastPathIsAnErrorAndTheConnectionGoesOn(int length) throws Exception {
    for (Exception failure : List.of(new IOException("no"), new IllegalStateException("mistake"))) {
      try (TestServer server = TestServer.of(new FailingAtOnce(failure));
          RawClient client = server.client()) {
        server.expectErrors();
        client.call(RawClient.EIO, 0, RawClient.READ, 0, 512);
        // Data that could not be transferred is read in the ordinary way.
        client.read(0, 300_000);
        client.call(RawClient.EIO, 0, RawClient.WRITE, 0, length, new byte[length]);
        client.call(0, 0, RawClient.TRIM, 0, length).disconnect();
      }
    }
  }

  /** Memory whose fast calls fail. */
  private static final class FailingAtOnce extends FilterBackend {
    private final Exception failure;

    FailingAtOnce(Exception failure) {
      super(new MemoryBackend(1 << 20));
      this.failure = failure;
    }

    private void fail() throws IOException {
      switch (failure) {
        case IOException io -> throw io;
        case RuntimeException mistake -> throw mistake;
        default -> throw new AssertionError(failure);
      }
    }

    @Override
    public Handle open(String exportName, boolean readOnly) throws IOException {
      return HookedBackend.handle(
          next.open(exportName, readOnly),
          (below, operation, patience, end) -> {
            boolean hasData =
                operation.command() == Command.READ || operation.command() == Command.WRITE;
            if (hasData && patience == Patience.AT_ONCE) {
              fail();
            }
            return below.perform(operation, patience, end);
          });
    }
  }
}
