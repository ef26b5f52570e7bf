package nbd.conformance;

import java.io.IOException;
import java.util.List;
import nbd.testing.ChunkClient;
import nbd.testing.ChunkClient.Answer;
import nbd.testing.ChunkClient.Told;
import nbd.testing.RawClient;
import nbd.testing.RawClient.Export;

/** Structured replies or extended headers. */
final class ChunkTalk implements Talk {
  private final ChunkClient chunks;
  private final Replies replies;

  private record Chunked(Answer answer) implements Outcome {
    @Override
    public int error() {
      return answer.error();
    }

    @Override
    public byte[] data() {
      return answer.error() == 0 ? answer.data() : new byte[0];
    }

    @Override
    public List<Told> extents() {
      return answer.extents();
    }
  }

  ChunkTalk(ChunkClient chunks, Replies replies) {
    this.chunks = chunks;
    this.replies = replies;
  }

  /** The client, for what only chunks can say. */
  ChunkClient chunks() {
    return chunks;
  }

  @Override
  public Replies replies() {
    return replies;
  }

  @Override
  public Export export() {
    return chunks.export();
  }

  @Override
  public RawClient raw() {
    return chunks.raw();
  }

  @Override
  public long send(int flags, int type, long offset, long length, byte... payload)
      throws IOException {
    return chunks.send(flags, type, offset, length, payload);
  }

  @Override
  public Outcome await(long cookie) throws IOException {
    return new Chunked(chunks.await(cookie));
  }

  @Override
  public void disconnect() throws IOException {
    chunks.disconnect();
  }

  @Override
  public void close() throws IOException {
    chunks.close();
  }
}
