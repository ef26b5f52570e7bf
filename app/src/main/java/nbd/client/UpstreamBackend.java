package nbd.client;

import java.io.IOException;
import java.util.List;
import java.util.Optional;
import nbd.backend.Backend;
import nbd.backend.Handle;
import nbd.backend.ListedExport;
import nbd.backend.ThreadModel;

/**
 * Another NBD server: each handle is a connection of its own to it, made when the handle is opened.
 */
public final class UpstreamBackend implements Backend {
  private final NbdUri uri;
  private final boolean dynamic;
  private final ClientSettings settings;

  /**
   * Describes the server; nothing is connected yet.
   *
   * @param uri where it is, and the export that is opened
   * @param dynamic whether the export's name is the one that a handle is opened by instead
   */
  public UpstreamBackend(NbdUri uri, boolean dynamic, ClientSettings settings) {
    this.uri = uri;
    this.dynamic = dynamic;
    this.settings = settings;
  }

  @Override
  public String name() {
    return uri.toString();
  }

  @Override
  public ThreadModel threadModel() {
    return ThreadModel.PARALLEL;
  }

  @Override
  public Optional<List<ListedExport>> exports() throws IOException {
    return dynamic ? Optional.of(NbdClient.list(uri, settings)) : Optional.empty();
  }

  @Override
  public Handle open(String exportName, boolean readOnly) throws IOException {
    String name = dynamic ? exportName : uri.exportName();
    return new UpstreamHandle(NbdClient.connect(uri, name, settings), readOnly);
  }

  @Override
  public void close() {
    // Each handle's connection is its own.
  }
}
