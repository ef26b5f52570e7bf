package nbd.upstream;

import java.io.IOException;
import nbd.client.NbdClient;
import nbd.filter.FilterHandle;

/** A connection to another NBD server, which reports when it has been closed. */
final class UpstreamHandle extends FilterHandle {
  private final Runnable afterClose;

  UpstreamHandle(NbdClient client, boolean readOnly, Runnable afterClose) {
    super(
        client, readOnly ? client.facts().with(client.capabilities().readOnly()) : client.facts());
    this.afterClose = afterClose;
  }

  @Override
  public boolean takesPipes() {
    return next.takesPipes();
  }

  @Override
  public void close() throws IOException {
    try {
      next.close();
    } finally {
      afterClose.run();
    }
  }
}
