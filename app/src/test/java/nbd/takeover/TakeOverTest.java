package nbd.takeover;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import nbd.posix.Descriptor;
import nbd.posix.PassingSocket;
import nbd.protocol.BlockSizes;
import nbd.protocol.ReplyFormat;
import nbd.protocol.TransmissionFlag;
import nbd.server.ClientState;
import nbd.server.Server;
import nbd.testing.Log;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.tinylog.Level;

/** Both sides of a take-over in one process, with a server that only notes what is done to it. */
@Timeout(300)
final class TakeOverTest {
  private static final Duration SHORT = Duration.ofMillis(100);
  private static final Duration LONG = Duration.ofMinutes(2);

  @TempDir private Path directory;
  private final List<String> events = new CopyOnWriteArrayList<>();
  private boolean isToldToEnd;
  private ServerSocketChannel listener;
  private SocketChannel newSide;
  private SocketChannel oldSide;

  private final ClientState client =
      new ClientState(
          "disk é",
          ReplyFormat.EXTENDED,
          Set.of("base:allocation", "qemu:dirty-bitmap:b"),
          1L << 40,
          Set.of(TransmissionFlag.SEND_FLUSH, TransmissionFlag.CAN_MULTI_CONN),
          new BlockSizes(512, 4096, 32 << 20),
          ByteBuffer.wrap(new byte[] {1, 2, 3}));

  @BeforeEach
  void connect() throws IOException {
    Path path = directory.resolve("socket");
    listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    listener.bind(UnixDomainSocketAddress.of(path));
    newSide = SocketChannel.open(UnixDomainSocketAddress.of(path));
    oldSide = listener.accept();
  }

  @AfterEach
  void disconnect() throws IOException {
    listener.close();
    newSide.close();
    oldSide.close();
    Log.clear();
  }

  /** The old server. */
  private final class Old implements GivingServer.Giver, GivingServer.Paused {
    @Override
    public GivingServer.Paused pause(Duration patience) {
      events.add("pause");
      return this;
    }

    @Override
    public Handover handover() throws IOException {
      List<Server.Client> clients = new ArrayList<>();
      for (int i = 0; i < 300; i++) {
        clients.add(new Server.Client(client, Descriptor.of(listener)));
      }
      return new Handover(
          "1.0.0",
          List.of(
              new Handover.Listener("unix:/x", Optional.of("disk é"), Descriptor.of(listener)),
              new Handover.Listener("unix:/y", Optional.of(""), Descriptor.of(listener)),
              new Handover.Listener("", Optional.empty(), Descriptor.of(listener))),
          List.of(Descriptor.of(listener)),
          clients);
    }

    @Override
    public void resume() {
      events.add("resume");
    }

    @Override
    public void leave(long process) throws IOException {
      if (isToldToEnd) {
        throw new IOException("the server was told to end");
      }
      assertThat(process).isEqualTo(ProcessHandle.current().pid());
      events.add("leave");
    }
  }

  private FutureTask<Boolean> give(Duration patience, String version) {
    FutureTask<Boolean> giving =
        new FutureTask<>(() -> new GivingServer(new Old(), patience).give(oldSide, version));
    Thread.ofPlatform().start(giving);
    return giving;
  }

  private static boolean result(FutureTask<Boolean> giving) throws Exception {
    return giving.get(2, TimeUnit.MINUTES);
  }

  @Test
  void everythingIsHandedOverAndTheOldServerLeavesFirst() throws Exception {
    FutureTask<Boolean> giving = give(LONG, "1");
    try (TakingServer taking = new TakingServer(newSide)) {
      Handover all = taking.handover();
      assertThat(all.program()).isEqualTo("1.0.0");
      assertThat(all.listeners())
          .extracting(Handover.Listener::address)
          .containsExactly("unix:/x", "unix:/y", "");
      assertThat(all.listeners())
          .extracting(Handover.Listener::name)
          .containsExactly(Optional.of("disk é"), Optional.of(""), Optional.empty());
      assertThat(all.images()).hasSize(1);
      assertThat(all.clients()).hasSize(300);
      assertThat(all.clients().getLast().state()).usingRecursiveComparison().isEqualTo(client);
      assertThat(events).containsExactly("pause");
      taking.take();
      assertThat(events).containsExactly("pause", "leave");
    }
    assertThat(result(giving)).isTrue();
  }

  @Test
  void aRefusalLetsTheOldServerGoOn() throws Exception {
    FutureTask<Boolean> giving = give(LONG, "1");
    try (TakingServer taking = new TakingServer(newSide)) {
      taking.refuse("the disk is smaller");
    }
    assertThat(result(giving)).isFalse();
    assertThat(events).containsExactly("pause", "resume");
    assertThat(Log.at(Level.ERROR)).anyMatch(line -> line.contains("the disk is smaller"));
  }

  @Test
  void theOldServerGoesOnIfTheNewOneIsGone() throws Exception {
    FutureTask<Boolean> giving = give(LONG, "1");
    new TakingServer(newSide).close();
    assertThat(result(giving)).isFalse();
    assertThat(events).containsExactly("pause", "resume");
  }

  @Test
  void theOldServerGoesOnIfTheNewOneIsSlow() throws Exception {
    FutureTask<Boolean> giving = give(SHORT, "1");
    assertThat(result(giving)).isFalse();
    assertThat(events).containsExactly("pause", "resume");
    oldSide.close();
    assertThatThrownBy(
            () -> {
              try (TakingServer late = new TakingServer(newSide)) {
                late.take();
              }
            })
        .isInstanceOf(IOException.class);
  }

  @Test
  void aServerThatIsReadyTooLateDoesNotServe() throws Exception {
    // The old side's own end is open still, as if it had just run out of patience.
    FutureTask<Boolean> giving = give(Duration.ofSeconds(4), "1");
    try (TakingServer late = new TakingServer(newSide)) {
      assertThat(result(giving)).isFalse();
      assertThat(events).containsExactly("pause", "resume");
      assertThatThrownBy(late::take).isInstanceOf(RefusedException.class);
    }
  }

  @Test
  void theNewServerEndsWithAServiceThatIsToldToEnd() throws Exception {
    isToldToEnd = true;
    FutureTask<Boolean> giving = give(LONG, "1");
    try (TakingServer taking = new TakingServer(newSide)) {
      assertThatThrownBy(taking::take)
          .isInstanceOf(RefusedException.class)
          .hasMessage("the server was told to end");
    }
    assertThat(result(giving)).isFalse();
  }

  @Test
  void theNewServerServesIfTheOldOneDiesAfterwards() throws Exception {
    Exchange old = new Exchange(new PassingSocket(oldSide));
    FutureTask<Boolean> giving =
        new FutureTask<>(
            () -> {
              old.send(new Old().handover(), LONG);
              old.awaitReady(LONG);
              old.close();
              oldSide.close();
              return true;
            });
    Thread.ofPlatform().start(giving);
    try (TakingServer taking = new TakingServer(newSide)) {
      taking.take();
    }
    assertThat(result(giving)).isTrue();
  }

  @Test
  void anotherVersionIsRefused() throws Exception {
    FutureTask<Boolean> giving = give(LONG, "2");
    assertThatThrownBy(() -> new TakingServer(newSide))
        .isInstanceOf(RefusedException.class)
        .hasMessageContaining("version 2");
    assertThat(result(giving)).isFalse();
    assertThat(events).isEmpty();
  }
}
