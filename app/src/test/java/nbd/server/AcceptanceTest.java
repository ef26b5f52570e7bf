package nbd.server;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.FutureTask;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import nbd.testing.Eventually;
import nbd.testing.Log;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.tinylog.Level;

/** The log's lines on clients that have to wait for their connection, which do not fill the log. */
@Timeout(300)
final class AcceptanceTest {
  private final AtomicLong now = new AtomicLong();
  private final Semaphore places = new Semaphore(1);
  private ServerSocketChannel listener;
  private Acceptance acceptance;

  @BeforeEach
  void listen() throws IOException {
    listener = ServerSocketChannel.open();
    listener.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
    acceptance = new Acceptance(listener, places, 1, now::get);
    Log.clear();
  }

  @AfterEach
  void close() throws IOException {
    listener.close();
  }

  private static List<String> lines() {
    return Log.at(Level.INFO);
  }

  private FutureTask<SocketChannel> acceptBeside() {
    FutureTask<SocketChannel> accepting = new FutureTask<>(acceptance::next);
    Thread.ofPlatform().start(accepting);
    return accepting;
  }

  @Test
  void aClientThatWaitsForAPlaceIsOneLineAMinute() throws Exception {
    places.acquire();
    for (int minute = 0; minute < 2; minute++) {
      for (int client = 0; client < 3; client++) {
        FutureTask<SocketChannel> accepting = acceptBeside();
        try (SocketChannel waiting = SocketChannel.open(listener.getLocalAddress())) {
          int lines = minute + 1;
          Eventually.isTrue("it is said", () -> lines().size() == lines);
          assertThat(accepting.isDone()).isFalse();
          places.release();
          accepting.get().close();
          assertThat(waiting.isOpen()).isTrue();
        }
        assertThat(places.availablePermits()).isZero();
      }
      assertThat(lines()).hasSize(minute + 1).allMatch(line -> line.contains("a client waits"));
      now.addAndGet(Duration.ofMinutes(1).toNanos());
    }
  }

  @Test
  void aFullServerForWhichNobodyWaitsSaysNothing() throws Exception {
    places.acquire();
    FutureTask<SocketChannel> accepting = acceptBeside();
    places.release();
    try (SocketChannel client = SocketChannel.open(listener.getLocalAddress())) {
      accepting.get().close();
      assertThat(client.isOpen()).isTrue();
    }
    assertThat(lines()).isEmpty();
  }

  @Test
  void outOfDescriptorsIsOneLineAndItsEndAnotherWithTheCount() {
    IOException failure = new IOException("Too many open files");
    for (int second = 0; second < 100; second++) {
      acceptance.noteFailure(failure);
      // One connection ends, another takes its descriptor: that is not the end of it.
      acceptance.noteSuccess();
      now.addAndGet(Duration.ofSeconds(1).toNanos());
    }
    assertThat(lines()).hasSize(1).first().asString().contains("Too many open files");
    now.addAndGet(Duration.ofMinutes(5).toNanos());
    acceptance.noteSuccess();
    acceptance.noteSuccess();
    assertThat(lines()).hasSize(2).last().asString().contains("100 times in 99 s");
  }
}
