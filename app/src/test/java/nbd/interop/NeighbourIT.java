package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import nbd.testing.Bytes;
import nbd.testing.RawClient;
import nbd.testing.Running;
import nbd.testing.SlowFiles;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * A file whose storage hangs delays only its own clients: while more calls than there are
 * processors hang on it, clients of another file are served. The test's file system holds the
 * calls, and releases them only when the other clients have been served.
 */
@Timeout(300)
final class NeighbourIT {
  private static final int KIB = 1 << 10;
  private static final int CLIENTS = 8;
  private static final long PLAIN = 1000;

  @TempDir private Path directory;
  private Path mount;
  private String socket;

  @BeforeEach
  void create() throws IOException {
    socket = directory.resolve("socket").toString();
    Path served = Files.createDirectory(directory.resolve("served"));
    mount = Files.createDirectory(served.resolve("mount"));
    for (String name : List.of("slow", "direct-slow")) {
      Files.createSymbolicLink(served.resolve(name), Path.of("mount", name));
    }
    try (RandomAccessFile quick = new RandomAccessFile(served.resolve("quick").toFile(), "rw")) {
      quick.setLength(1 << 20);
    }
  }

  private SlowFiles slowFiles() throws IOException {
    return SlowFiles.mount(mount, "slow:1048576", "direct-slow:1048576");
  }

  private ServeProcess serve() throws Exception {
    return ServeProcess.ready("-U", socket, "dir:" + directory.resolve("served"));
  }

  private static List<RawClient> clients(ServeProcess serve, String name) throws IOException {
    List<RawClient> clients = new ArrayList<>();
    for (int i = 0; i < CLIENTS; i++) {
      RawClient client = serve.client(name);
      // Shows the server that reads are quick, and brings the file's pages into the page cache.
      long at = i * 65_536L;
      for (int round = 0; round < 3; round++) {
        client.write(at, Bytes.random(i, 4 * KIB));
        client.call(0, RawClient.FUA, RawClient.WRITE, at, 512, Bytes.random(i, 512));
        client.read(at, 4 * KIB);
      }
      clients.add(client);
    }
    return clients;
  }

  private static void close(List<RawClient> clients) throws IOException {
    for (RawClient client : clients) {
      client.close();
    }
  }

  /** Checks that an old and a new client of another file are served. */
  private static void assertServed(ServeProcess serve, RawClient neighbour) throws IOException {
    try (RawClient fresh = serve.client("quick")) {
      for (RawClient client : List.of(neighbour, fresh)) {
        for (int i = 0; i < 200; i++) {
          byte[] data = Bytes.random(i, 4 * KIB);
          client.write(i * 4L * KIB, data);
          assertThat(client.read(i * 4L * KIB, 4 * KIB)).isEqualTo(data);
        }
        client.call(0, RawClient.FUA, RawClient.WRITE, 0, 512, new byte[512]);
        client.call(0, 0, RawClient.WRITE_ZEROES, 0, 64 * KIB);
        client.flush();
        assertThat(client.read(0, 512 * KIB)).hasSize(512 * KIB);
      }
      fresh.disconnect();
    }
  }

  /** Sends a request; a flush has no range. */
  private static void request(RawClient client, int number, int flags, int type)
      throws IOException {
    boolean flush = type == RawClient.FLUSH;
    byte[] data = new byte[type == RawClient.WRITE ? 4 * KIB : 0];
    client.request(flags, type, number, flush ? 0 : number * 4L * KIB, flush ? 0 : 4 * KIB, data);
  }

  private static int command(String name) {
    return switch (name) {
      case "read" -> RawClient.READ;
      case "write", "fua" -> RawClient.WRITE;
      case "zero" -> RawClient.WRITE_ZEROES;
      case "flush" -> RawClient.FLUSH;
      default -> throw new IllegalArgumentException(name);
    };
  }

  /** Eight clients send each kind of request, on a file in the page cache or not. */
  @ParameterizedTest
  @ValueSource(
      strings = {
        "direct-slow read",
        "direct-slow write",
        "direct-slow fua",
        "slow read",
        "slow write",
        "slow fua",
        "slow zero",
        "slow flush"
      })
  void whateverHangsOnOneFileAnothersClientsAreServed(String what) throws Exception {
    String file = what.split(" ")[0];
    String kind = what.split(" ")[1];
    int flags = kind.equals("fua") ? RawClient.FUA : 0;
    try (SlowFiles slow = slowFiles();
        ServeProcess serve = serve();
        RawClient neighbour = serve.client("quick")) {
      neighbour.write(0, Bytes.random(1, 4 * KIB)).flush();
      List<RawClient> clients = clients(serve, file);
      slow.hold("read write fsync fallocate");
      for (int round = 0; round < 4; round++) {
        for (RawClient client : clients) {
          if (kind.equals("flush")) {
            request(client, 100 + round, 0, RawClient.WRITE);
          }
          request(client, round + 16 * (clients.indexOf(client) + 1), flags, command(kind));
        }
      }
      slow.awaitHeld(file.equals("slow") ? 1 : CLIENTS);
      assertServed(serve, neighbour);
      slow.release();
      for (RawClient client : clients) {
        for (int i = 0; i < (kind.equals("flush") ? 8 : 4); i++) {
          client.expectReply(0);
          client.take(kind.equals("read") ? 4 * KIB : 0);
        }
      }
      neighbour.flush();
      close(clients);
      serve.stop();
    }
  }

  /** Thirty-two are at the disk, as many as a file may have there; the others wait for them. */
  @Test
  void hundredsOfWritesWithFuaInFlightStopNobody() throws Exception {
    try (SlowFiles slow = slowFiles();
        ServeProcess serve = serve();
        RawClient neighbour = serve.client("quick");
        RawClient client = serve.client("direct-slow")) {
      for (int i = 0; i < 20; i++) {
        client.call(0, RawClient.FUA, RawClient.WRITE, 0, 512, new byte[512]);
      }
      slow.hold("read write");
      client.request(0, RawClient.READ, PLAIN, 512 * KIB, 4 * KIB);
      slow.awaitHeld(1);
      Running sending =
          Running.start(
              () -> {
                for (int i = 0; i < 300; i++) {
                  client.request(RawClient.FUA, RawClient.WRITE, i, i * 512L, 512, new byte[512]);
                }
              });
      slow.awaitHeld(1 + 32);
      assertServed(serve, neighbour);
      slow.release();
      for (int i = 0; i < 1 + 300; i++) {
        client.take(client.expectReply(0) == PLAIN ? 4 * KIB : 0);
      }
      sending.join();
      serve.stop();
    }
  }
}
