package nbd.upstream;

import java.io.IOException;
import nbd.client.NbdClient;
import nbd.filter.FilterHandle;
import nbd.storage.Completion;
import nbd.storage.Operation;
import nbd.storage.Outcome;
import nbd.storage.Patience;

/** A connection to another NBD server, which reports when it has been closed. */
final class UpstreamHandle extends FilterHandle {
  private final Runnable afterClose;

  UpstreamHandle(NbdClient client, boolean readOnly, Runnable afterClose) {
    super(
        client, readOnly ? client.facts().with(client.capabilities().readOnly()) : client.facts());
    this.afterClose = afterClose;
  }

  @Override
  public Outcome perform(Operation operation, Patience patience, Completion end)
      throws IOException {
    return next.perform(operation, patience, end);
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
