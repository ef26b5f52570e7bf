package nbd.client;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.testing.Eventually;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The time limit for resolving a host's name. */
@Timeout(300)
final class ConnectTimeoutTest {
  private static final NbdUri URI = NbdUri.parse("nbd://host.example/");

  private final CountDownLatch answer = new CountDownLatch(1);
  private final CountDownLatch asked = new CountDownLatch(1);
  private final AtomicInteger questions = new AtomicInteger();

  private final HostNames slow =
      new HostNames(
          host -> {
            questions.incrementAndGet();
            asked.countDown();
            Eventually.await(answer);
            throw new UnknownHostException(host);
          });

  private static ClientSettings within(Duration timeout) {
    return new ClientSettings(timeout, Duration.ZERO);
  }

  private CompletableFuture<Throwable> connect(Duration timeout, ConnectAttempts attempts) {
    CompletableFuture<Throwable> end = new CompletableFuture<>();
    Thread.ofVirtual()
        .start(
            () -> {
              try {
                new Connector(URI, within(timeout), attempts, slow).open();
                end.complete(new AssertionError("connected"));
              } catch (IOException | RuntimeException | Error failure) {
                end.complete(failure);
              }
            });
    return end;
  }

  @Test
  void theConnectTimeoutCoversLookingTheHostUp() {
    assertThatThrownBy(
            () ->
                new Connector(URI, within(Duration.ofMillis(50)), new ConnectAttempts(), slow)
                    .open())
        .hasMessageContaining("did not complete the handshake within 50 ms");
    answer.countDown();
  }

  @Test
  void aServerThatStopsDoesNotWaitForAName() throws Exception {
    ConnectAttempts attempts = new ConnectAttempts();
    CompletableFuture<Throwable> early = connect(Duration.ofHours(1), attempts);
    Eventually.await(asked);
    attempts.stop();
    assertThat(early.get()).hasMessageContaining("stops");
    assertThat(connect(Duration.ofHours(1), attempts).get()).hasMessageContaining("stops");
    answer.countDown();
  }

  @Test
  void allAttemptsShareOneLookUpOfAHost() throws Exception {
    ConnectAttempts attempts = new ConnectAttempts();
    CompletableFuture<Throwable> one = connect(Duration.ofHours(1), attempts);
    Eventually.await(asked);
    CompletableFuture<Throwable> other = connect(Duration.ofMillis(20), attempts);
    assertThat(other.get()).hasMessageContaining("within 20 ms");
    assertThat(one).isNotDone();
    answer.countDown();
    assertThat(one.get()).hasMessageContaining("\"host.example\" is not known");
    assertThat(questions).hasValue(1);
  }

  @Test
  void anAddressIsFound() throws Exception {
    try (ConnectDeadline deadline =
        new ConnectDeadline(Duration.ofMinutes(1), new ConnectAttempts())) {
      assertThat(HostNames.SYSTEM.addresses("127.0.0.1", deadline))
          .containsExactly(InetAddress.getLoopbackAddress());
    }
  }
}
