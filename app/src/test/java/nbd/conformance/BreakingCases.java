package nbd.conformance;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import nbd.memory.MemoryBackend;
import nbd.server.TestServer;
import nbd.storage.Backend;
import nbd.testing.Bytes;
import nbd.testing.CheckedClient;
import nbd.testing.RawClient;
import nbd.testing.Replies;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.platform.commons.annotation.Testable;
import org.junit.platform.commons.support.AnnotationSupport;

/**
 * A server that a client tries to break, watched by the tests of the ways in which NBD servers have
 * broken. After each test the server lives, a connection opened before still works, and
 * descriptors, threads and memory are back where they were.
 */
@Timeout(300)
abstract class BreakingCases {
  static final int EINVAL = 22;
  static final int LONGEST = 32 << 20;
  static final int SIZE = 2 * LONGEST;

  @TempDir Path directory;

  final List<RawClient> clients = new ArrayList<>();
  private long directBefore;
  private Optional<TestServer> running = Optional.empty();
  private Optional<Footprint> before = Optional.empty();

  /** Begins to watch a server, which is stopped and checked at the end. */
  final TestServer watch(TestServer server) {
    running = Optional.of(server);
    directBefore = Footprint.direct();
    before = Optional.of(Footprint.of(server));
    return server;
  }

  final TestServer serve(Backend backend) throws IOException {
    return watch(TestServer.of(backend));
  }

  final TestServer serveMemory() throws IOException {
    return serve(new MemoryBackend(SIZE));
  }

  /** Connects a client, which is closed at the end at the latest. */
  final RawClient connect() throws IOException {
    RawClient client = running.orElseThrow().connect();
    clients.add(client);
    return client;
  }

  final RawClient hello() throws IOException {
    return connect().hello(3);
  }

  final CheckedClient enter(Replies replies) throws IOException {
    return CheckedClient.enter(connect(), replies, "");
  }

  @AfterEach
  void everythingIsAsItWas() throws Exception {
    for (RawClient client : clients) {
      client.close();
    }
    if (running.isPresent()) {
      try (TestServer server = running.get()) {
        before.orElseThrow().awaitReturn(server, directBefore);
      }
    }
  }

  /** Returns the footprint of the server before any client came. */
  final Footprint before() {
    return before.orElseThrow();
  }

  /** Checks that a class has a test of this name. */
  static void assertIsTest(String type, String test) throws ClassNotFoundException {
    assertThat(Class.forName(type).getDeclaredMethods())
        .filteredOn(method -> method.getName().equals(test))
        .singleElement()
        .matches(method -> AnnotationSupport.isAnnotated(method, Testable.class));
  }

  /** Makes a request, on twelve bytes if it has a range, with its payload. */
  static byte[] request(Replies replies, int type) {
    boolean wide = replies == Replies.EXTENDED;
    int length = type == RawClient.FLUSH ? 0 : 12;
    Bytes bytes =
        Bytes.of()
            .u32(wide ? 0x21e41c71 : 0x25609513)
            .u16(wide && type == RawClient.WRITE ? RawClient.PAYLOAD_LEN : 0)
            .u16(type)
            .u64(7)
            .u64(type == RawClient.FLUSH ? 0 : 4);
    return (wide ? bytes.u64(length) : bytes.u32(length))
        .raw(new byte[type == RawClient.WRITE ? 12 : 0])
        .toArray();
  }
}
