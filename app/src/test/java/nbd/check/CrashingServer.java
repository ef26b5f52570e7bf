package nbd.check;

import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import nbd.client.ClientSettings;
import nbd.client.NbdUri;
import nbd.server.TestServer;

/** A server at a path that stays the same, which can be killed and started again. */
final class CrashingServer implements Restart, AutoCloseable {
  private final FaultyStorage storage;
  private final Path link;
  private TestServer server;

  CrashingServer(FaultyStorage storage, Path link) throws IOException {
    this.storage = storage;
    this.link = link;
    this.server = start();
  }

  private TestServer start() throws IOException {
    TestServer started = TestServer.of(storage);
    Files.deleteIfExists(link);
    Files.createSymbolicLink(link, ((UnixDomainSocketAddress) started.address()).getPath());
    return started;
  }

  Target target() throws IOException {
    return Target.open(NbdUri.unix(link, ""), ClientSettings.DEFAULT);
  }

  @Override
  public void run() throws IOException {
    try {
      boolean _ = server.stop(Duration.ZERO);
      server.awaitHandles(0);
    } catch (InterruptedException interrupted) {
      throw new IOException(interrupted);
    }
    server.close();
    storage.crash();
    server = start();
  }

  @Override
  public void close() throws IOException {
    server.close();
  }
}
