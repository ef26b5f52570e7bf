package nbd.client;

import java.util.List;
import nbd.storage.Extent;

/**
 * A server's answer to one request.
 *
 * @param error the number of the error as the server sent it; 0 for success
 * @param message the server's text for the error; may be empty
 * @param extents of a BLOCK_STATUS, as the server sent them; alike neighbours are merged
 */
public record Answer(int error, String message, List<Extent> extents) {
  /** Keeps a copy. */
  public Answer {
    extents = List.copyOf(extents);
  }
}
