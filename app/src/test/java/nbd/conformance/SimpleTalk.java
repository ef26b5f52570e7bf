package nbd.conformance;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import nbd.testing.ChunkClient.Told;
import nbd.testing.RawClient;
import nbd.testing.RawClient.Export;

/** Simple replies. */
final class SimpleTalk implements Talk {
  private final RawClient raw;
  private final Export export;
  private final Map<Long, Integer> reads = new HashMap<>();
  private final Map<Long, Outcome> answers = new HashMap<>();
  private long nextCookie = 0x51_0000_0000L;

  private static final class Simple implements Outcome {
    private final int error;
    private final byte[] data;

    Simple(int error, byte... data) {
      this.error = error;
      this.data = data;
    }

    @Override
    public int error() {
      return error;
    }

    @Override
    public byte[] data() {
      return data;
    }

    @Override
    public List<Told> extents() {
      return List.of();
    }
  }

  SimpleTalk(RawClient raw, Export export) {
    this.raw = raw;
    this.export = export;
  }

  @Override
  public Replies replies() {
    return Replies.SIMPLE;
  }

  @Override
  public Export export() {
    return export;
  }

  @Override
  public RawClient raw() {
    return raw;
  }

  @Override
  public long send(int flags, int type, long offset, long length, byte... payload)
      throws IOException {
    long cookie = nextCookie++;
    reads.put(cookie, type == RawClient.READ ? (int) length : 0);
    raw.request(flags, type, cookie, offset, length, payload);
    return cookie;
  }

  @Override
  public Outcome await(long cookie) throws IOException {
    while (!answers.containsKey(cookie)) {
      ByteBuffer header = ByteBuffer.wrap(raw.take(16));
      assertThat(header.getInt()).as("the reply's magic").isEqualTo(0x67446698);
      int error = header.getInt();
      long answered = header.getLong();
      Integer length = reads.remove(answered);
      assertThat(length).as("a request with the cookie %x", answered).isNotNull();
      answers.put(answered, new Simple(error, raw.take(error == 0 ? length : 0)));
    }
    return java.util.Objects.requireNonNull(answers.remove(cookie));
  }

  @Override
  public void disconnect() throws IOException {
    raw.disconnect();
  }

  @Override
  public void close() throws IOException {
    raw.close();
  }
}
