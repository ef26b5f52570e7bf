package nbd.conformance;

import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import nbd.protocol.BlockSizes;
import nbd.server.TestServer;
import nbd.storage.Backend;
import nbd.storage.ThreadModel;
import nbd.testing.CheckedClient;
import nbd.testing.RawClient;
import nbd.testing.Replies;

/** A server of one {@link Storage}, with the facts that its clients need. */
final class Served implements Closeable {
  private final Storage storage;
  private final Path directory;
  private final Making making;
  private final Backend backend;
  private final TestServer server;
  private final BlockSizes blockSizes;

  Served(Storage storage) throws IOException {
    this.storage = storage;
    directory = Files.createTempDirectory("nbd-conformance-");
    making = new Making(directory);
    backend = storage.make(making);
    TestServer.Options options = TestServer.with(backend).description("for tests");
    if (storage == Storage.DIRECTORY) {
      options.ownNames(Making.FILE_NAME);
    }
    if (storage == Storage.READ_ONLY_EXPORT) {
      options.readOnly();
    }
    if (!takesSeveralClients()) {
      options.maxConnections(1);
    }
    server = options.start();
    blockSizes = askForBlockSizes();
  }

  private BlockSizes askForBlockSizes() throws IOException {
    try (RawClient client = server.connect()) {
      client.hello(3).option(RawClient.OPT_INFO, RawClient.infoData(name(), 3));
      List<RawClient.Reply> infos = client.expectInfos(RawClient.OPT_INFO);
      ByteBuffer told =
          infos.stream()
              .filter(info -> RawClient.infoType(info) == 3)
              .map(info -> ByteBuffer.wrap(info.data()))
              .findFirst()
              .orElseThrow();
      client.option(RawClient.ABORT).expectAck(RawClient.ABORT).expectEnd();
      return new BlockSizes(told.getInt(2), told.getInt(6), told.getInt(10));
    }
  }

  TestServer server() {
    return server;
  }

  String name() {
    return storage == Storage.DIRECTORY ? Making.FILE_NAME : "";
  }

  BlockSizes blockSizes() {
    return blockSizes;
  }

  boolean takesSeveralClients() {
    return backend.threadModel() != ThreadModel.SERIALIZE_CONNECTIONS;
  }

  /** Connects a client, and enters the transmission phase. */
  CheckedClient enter(Replies replies) throws IOException {
    return CheckedClient.enter(server.connect(), replies, name());
  }

  /** Makes the table of errors for a client's requests. */
  Rules rules(CheckedClient client) {
    return new Rules(client, blockSizes);
  }

  @Override
  public void close() throws IOException {
    try (making) {
      server.close();
      backend.close();
    }
    Files.delete(directory);
  }
}
