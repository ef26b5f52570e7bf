package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assumptions.assumeThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.jar.JarFile;
import java.util.stream.Stream;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import nbd.testing.ScriptedServer;
import nbd.testing.ScriptedServer.Asked;
import nbd.testing.ScriptedServer.Peer;
import nbd.testing.ScriptedServer.Script;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Large requests to a proxy, which splices their data from one socket to the other. The jar serves,
 * since only its manifest gives access to the sockets' descriptors.
 */
@Timeout(300)
final class SpliceIT {
  private static final int SIZE = 4 << 20;
  private static final int LENGTH = 256 << 10;
  private static final int FLAGS = 5;
  private static final int DATA = 1;
  private static final int HOLE = 2;
  private static final int ERROR = 0x8001;
  private static final byte[] IMAGE = Bytes.random(1, SIZE);

  @TempDir private Path directory;

  private ServeProcess serve(ScriptedServer upstream, String... more) throws Exception {
    List<String> arguments = new ArrayList<>(List.of("-U", directory.resolve("socket").toString()));
    arguments.addAll(List.of(more));
    arguments.add(upstream.uri());
    return ServeProcess.ready(arguments.toArray(String[]::new));
  }

  private static CheckedClient client(ServeProcess serve, Replies replies) throws IOException {
    return CheckedClient.enter(RawClient.connect(serve.address()), replies, "");
  }

  /** A way to answer a READ. */
  @FunctionalInterface
  private interface Answer {
    void to(Asked asked, Peer peer) throws IOException;
  }

  /** Makes a script that serves the image until the client leaves; READs get the given answer. */
  private static Script server(ScriptedServer.Replies replies, byte[] image, Answer reads) {
    return peer -> {
      peer.open(replies, SIZE, FLAGS);
      while (true) {
        Asked asked = peer.request();
        if (asked.type() == RawClient.DISC) {
          return;
        }
        if (asked.type() == RawClient.READ) {
          reads.to(asked, peer);
          continue;
        }
        if (asked.type() == RawClient.WRITE) {
          asked.payload().get(image, (int) asked.offset(), (int) asked.length());
        }
        if (asked.type() == RawClient.BLOCK_STATUS) {
          byte[] extent =
              replies == ScriptedServer.Replies.EXTENDED
                  ? Bytes.of()
                      .u32(ScriptedServer.CONTEXT)
                      .u32(1)
                      .u64(asked.length())
                      .u64(0)
                      .toArray()
                  : Bytes.of().u32(ScriptedServer.CONTEXT).u32(asked.length()).u32(0).toArray();
          peer.chunk(asked, true, replies == ScriptedServer.Replies.EXTENDED ? 6 : 5, extent);
          continue;
        }
        peer.done(asked);
      }
    };
  }

  private static byte[] part(byte[] image, long from, long length) {
    return Arrays.copyOfRange(image, (int) from, (int) (from + length));
  }

  private static byte[] piece(Asked asked, int from, int length) {
    return Bytes.of()
        .u64(asked.offset() + from)
        .raw(part(IMAGE, asked.offset() + from, length))
        .toArray();
  }

  private static void plain(Asked asked, Peer peer) throws IOException {
    peer.data(asked, part(IMAGE, asked.offset(), asked.length()));
  }

  /** Returns the number of ends of pipes that the server's processes have. */
  private static long pipes(ServeProcess serve) {
    ProcessHandle launcher = ProcessHandle.of(serve.pid()).orElseThrow();
    return Stream.concat(Stream.of(launcher), launcher.descendants())
        .mapToLong(
            process -> {
              try (Stream<Path> files = Files.list(Path.of("/proc/" + process.pid() + "/fd"))) {
                return files.filter(SpliceIT::isPipe).count();
              } catch (IOException gone) {
                return 0;
              }
            })
        .sum();
  }

  private static boolean isPipe(Path descriptor) {
    try {
      return Files.readSymbolicLink(descriptor).toString().startsWith("pipe:");
    } catch (IOException closed) {
      return false;
    }
  }

  @ParameterizedTest
  @CsvSource({"SIMPLE,STRUCTURED", "STRUCTURED,SIMPLE", "EXTENDED,EXTENDED"})
  void largeRequestsPassThroughPipes(ScriptedServer.Replies replies, Replies forClient)
      throws Exception {
    byte[] image = IMAGE.clone();
    Script script =
        server(
            replies,
            image,
            (asked, peer) -> peer.data(asked, part(image, asked.offset(), asked.length())));
    try (ScriptedServer upstream = ScriptedServer.of(script);
        ServeProcess serve = serve(upstream);
        CheckedClient client = client(serve, forClient)) {
      for (int length : new int[] {4096, 1 << 16, 100_000, LENGTH, 512 << 10, 1 << 20}) {
        byte[] written = Bytes.random(length, length);
        client.write(4096, written);
        assertThat(part(image, 4096, length)).isEqualTo(written);
        assertThat(client.read(2048, length + 4096)).isEqualTo(part(image, 2048, length + 4096));
      }
      client.disconnect();
      serve.stopQuietly();
    }
  }

  @Test
  void aLargeReadNeedsAPipe() throws Exception {
    try (JarFile jar = new JarFile(System.getProperty("nbd.jar"))) {
      assumeThat(jar.getManifest().getMainAttributes().getValue("Add-Exports")).isNotNull();
    }
    Script script = server(ScriptedServer.Replies.SIMPLE, IMAGE.clone(), SpliceIT::plain);
    try (ScriptedServer upstream = ScriptedServer.of(script);
        ServeProcess serve = serve(upstream);
        RawClient client = serve.client()) {
      assertThat(client.read(0, 4096)).isEqualTo(part(IMAGE, 0, 4096));
      long before = pipes(serve);
      assertThat(client.read(0, LENGTH)).isEqualTo(part(IMAGE, 0, LENGTH));
      assertThat(pipes(serve)).isGreaterThan(before);
      client.disconnect();
      serve.stopQuietly();
    }
  }

  /** Ways to send a READ's data in chunks. */
  enum Chunks {
    IN_ORDER,
    BACKWARDS,
    HOLES_BETWEEN,
    THE_END_AFTER_THE_DATA;

    byte[] expected(Asked asked) {
      byte[] data = part(IMAGE, asked.offset(), asked.length());
      if (this == HOLES_BETWEEN) {
        Arrays.fill(data, LENGTH / 4, LENGTH / 2, (byte) 0);
        Arrays.fill(data, LENGTH * 3 / 4, LENGTH, (byte) 0);
      }
      return data;
    }

    void send(Asked asked, Peer peer) throws IOException {
      int quarter = LENGTH / 4;
      switch (this) {
        case IN_ORDER -> {
          peer.chunk(asked, false, DATA, piece(asked, 0, quarter));
          peer.chunk(asked, true, DATA, piece(asked, quarter, 3 * quarter));
        }
        case BACKWARDS -> {
          peer.chunk(asked, false, DATA, piece(asked, 0, quarter));
          peer.chunk(asked, false, DATA, piece(asked, 2 * quarter, 2 * quarter));
          peer.chunk(asked, true, DATA, piece(asked, quarter, quarter));
        }
        case HOLES_BETWEEN -> {
          peer.chunk(asked, false, DATA, piece(asked, 0, quarter));
          peer.chunk(asked, false, HOLE, hole(asked, quarter, quarter));
          peer.chunk(asked, false, DATA, piece(asked, 2 * quarter, quarter));
          peer.chunk(asked, true, HOLE, hole(asked, 3 * quarter, quarter));
        }
        case THE_END_AFTER_THE_DATA -> {
          peer.chunk(asked, false, DATA, piece(asked, 0, LENGTH));
          peer.chunk(asked, true, 0);
        }
      }
    }

    private static byte[] hole(Asked asked, int from, int length) {
      return Bytes.of().u64(asked.offset() + from).u32(length).toArray();
    }
  }

  @ParameterizedTest
  @EnumSource(Chunks.class)
  void chunksOfAnyOrderAreReadAsOne(Chunks chunks) throws Exception {
    Script script = server(ScriptedServer.Replies.STRUCTURED, IMAGE.clone(), chunks::send);
    try (ScriptedServer upstream = ScriptedServer.of(script);
        ServeProcess serve = serve(upstream);
        CheckedClient client = client(serve, Replies.SIMPLE)) {
      for (long offset = 0; offset < 3; offset++) {
        Asked asked = new Asked(0, RawClient.READ, 0, offset, LENGTH, ByteBuffer.allocate(0));
        assertThat(client.read(offset, LENGTH)).isEqualTo(chunks.expected(asked));
      }
      client.disconnect();
      serve.stopQuietly();
    }
  }

  @Test
  void dataInManySmallPacketsArrivesWhole() throws Exception {
    Script script =
        server(
            ScriptedServer.Replies.SIMPLE,
            IMAGE.clone(),
            (asked, peer) -> {
              peer.simple(asked, 0);
              for (int at = 0; at < LENGTH; at += 64) {
                peer.send(part(IMAGE, asked.offset() + at, 64));
              }
            });
    try (ScriptedServer upstream = ScriptedServer.of(script);
        ServeProcess serve = serve(upstream);
        CheckedClient client = client(serve, Replies.SIMPLE)) {
      for (int i = 0; i < 4; i++) {
        assertThat(client.read(i, LENGTH)).isEqualTo(part(IMAGE, i, LENGTH));
      }
      client.disconnect();
      serve.stopQuietly();
    }
  }

  @Test
  void aPayloadInManySmallPacketsArrivesWhole() throws Exception {
    byte[] image = new byte[SIZE];
    Script script = server(ScriptedServer.Replies.SIMPLE, image, SpliceIT::plain);
    try (ScriptedServer upstream = ScriptedServer.of(script);
        ServeProcess serve = serve(upstream);
        RawClient client = serve.client()) {
      client.send(RawClient.requestBytes(0, RawClient.WRITE, 1, 5, LENGTH));
      for (int at = 0; at < LENGTH; at += 64) {
        client.send(part(IMAGE, at, 64));
      }
      client.expectReply(0, 1);
      assertThat(part(image, 5, LENGTH)).isEqualTo(part(IMAGE, 0, LENGTH));
      client.disconnect();
      serve.stopQuietly();
    }
  }

  @ParameterizedTest
  @EnumSource(Replies.class)
  void anErrorAfterHalfOfTheDataIsTheAnswer(Replies forClient) throws Exception {
    Script script =
        server(
            ScriptedServer.Replies.STRUCTURED,
            IMAGE.clone(),
            (asked, peer) -> {
              if (asked.offset() % 2 == 0) {
                plain(asked, peer);
                return;
              }
              peer.chunk(asked, false, DATA, piece(asked, 0, LENGTH / 2));
              peer.chunk(asked, true, ERROR, Bytes.of().u32(28).u16(4).text("full").toArray());
            });
    try (ScriptedServer upstream = ScriptedServer.of(script);
        ServeProcess serve = serve(upstream);
        CheckedClient client = client(serve, forClient)) {
      for (long offset = 0; offset < 8; offset += 2) {
        assertThat(client.read(offset, LENGTH)).isEqualTo(part(IMAGE, offset, LENGTH));
        assertThat(client.ask(0, RawClient.READ, offset + 1, LENGTH).error()).isEqualTo(28);
      }
      client.disconnect();
      serve.stop();
    }
  }

  @Test
  void aBreakInTheMiddleOfTheDataIsAnError() throws Exception {
    Script breaks =
        peer -> {
          peer.open(ScriptedServer.Replies.SIMPLE, SIZE, FLAGS);
          peer.simple(peer.request(), 0, new byte[LENGTH / 2]);
        };
    Script good = server(ScriptedServer.Replies.SIMPLE, IMAGE.clone(), SpliceIT::plain);
    try (ScriptedServer upstream = ScriptedServer.of(breaks, good);
        ServeProcess serve = serve(upstream)) {
      try (RawClient client = serve.client()) {
        client.call(RawClient.EIO, 0, RawClient.READ, 0, LENGTH);
        client.disconnect();
      }
      try (RawClient client = serve.client()) {
        assertThat(client.read(7, LENGTH)).isEqualTo(part(IMAGE, 7, LENGTH));
        client.disconnect();
      }
      serve.stop();
    }
  }

  @Test
  void withReconnectABreakInTheMiddleIsNotSeen() throws Exception {
    Script breaks =
        peer -> {
          peer.open(ScriptedServer.Replies.SIMPLE, SIZE, FLAGS);
          peer.simple(peer.request(), 0, new byte[LENGTH / 2]);
        };
    Script good = server(ScriptedServer.Replies.SIMPLE, IMAGE.clone(), SpliceIT::plain);
    try (ScriptedServer upstream = ScriptedServer.of(breaks, good);
        ServeProcess serve = serve(upstream, "--reconnect=30s");
        RawClient client = serve.client()) {
      assertThat(client.read(7, LENGTH)).isEqualTo(part(IMAGE, 7, LENGTH));
      client.disconnect();
      serve.stop();
    }
  }

  @Test
  void aWriteWhoseClientLeavesInTheMiddleDoesNotReachTheUpstream() throws Exception {
    byte[] image = new byte[SIZE];
    Script script = server(ScriptedServer.Replies.SIMPLE, image, SpliceIT::plain);
    try (ScriptedServer upstream = ScriptedServer.of(script);
        ServeProcess serve = serve(upstream, "--share-connection");
        RawClient stays = serve.client()) {
      try (RawClient leaves = serve.client()) {
        leaves.write(0, new byte[LENGTH]);
        leaves.send(RawClient.requestBytes(0, RawClient.WRITE, 1, 0, LENGTH));
        leaves.send(part(IMAGE, 0, LENGTH / 2));
      }
      stays.write(SIZE - LENGTH, part(IMAGE, 0, LENGTH));
      assertThat(part(image, 0, LENGTH)).containsOnly(0);
      assertThat(part(image, SIZE - LENGTH, LENGTH)).isEqualTo(part(IMAGE, 0, LENGTH));
      stays.disconnect();
      serve.stopQuietly();
    }
  }

  @Test
  void aClientThatTakesNoRepliesHoldsUpNoOtherOfTheConnection() throws Exception {
    Script script = server(ScriptedServer.Replies.SIMPLE, IMAGE.clone(), SpliceIT::plain);
    try (ScriptedServer upstream = ScriptedServer.of(script);
        ServeProcess serve = serve(upstream, "--share-connection");
        RawClient stalled = RawClient.connectNarrow(serve.address());
        RawClient other = serve.client()) {
      stalled.enter("");
      int requests = 100;
      for (int cookie = 0; cookie < requests; cookie++) {
        stalled.request(0, RawClient.READ, cookie, cookie, LENGTH);
      }
      for (int i = 0; i < 20; i++) {
        assertThat(other.read(i, LENGTH)).isEqualTo(part(IMAGE, i, LENGTH));
        other.write(i, new byte[0]);
      }
      for (int reply = 0; reply < requests; reply++) {
        long cookie = stalled.expectReply(0);
        assertThat(stalled.take(LENGTH)).isEqualTo(part(IMAGE, cookie, LENGTH));
      }
      stalled.disconnect();
      other.disconnect();
      serve.stopQuietly();
    }
  }
}
