package nbd.conformance;

import java.io.IOException;
import java.util.Optional;
import nbd.server.TestServer;
import nbd.testing.ChunkClient;
import nbd.testing.ChunkClient.Layout;
import nbd.testing.RawClient;

/** What a client can agree on with the server about the form of replies. */
enum Replies {
  SIMPLE(Optional.empty()),
  STRUCTURED(Optional.of(Layout.STRUCTURED)),
  EXTENDED(Optional.of(Layout.EXTENDED));

  private final Optional<Layout> layout;

  Replies(Optional<Layout> layout) {
    this.layout = layout;
  }

  /** A client in the transmission phase; with chunks, it has selected base:allocation. */
  Talk enter(TestServer server, String name) throws IOException {
    RawClient raw = server.connect();
    return layout.isPresent()
        ? new ChunkTalk(ChunkClient.enter(raw, layout.get(), name), this)
        : new SimpleTalk(raw, raw.enter(name));
  }
}
