package nbd.file;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.util.OptionalLong;

/** An open file by what the JDK has alone, on systems other than Linux: no holes, no hurry. */
final class ChannelFile implements OpenFile {
  private final FileChannel channel;

  ChannelFile(FileChannel channel) {
    this.channel = channel;
  }

  @Override
  public Traits traits() {
    return Traits.NONE;
  }

  @Override
  public long size() throws IOException {
    return channel.size();
  }

  @Override
  public int read(ByteBuffer into, long offset) throws IOException {
    return Math.max(channel.read(into, offset), 0);
  }

  @Override
  public CachedReads cachedReads() {
    return CachedReads.NONE;
  }

  @Override
  public void write(ByteBuffer from, long offset) throws IOException {
    long at = offset;
    while (from.hasRemaining()) {
      at += channel.write(from, at);
    }
  }

  @Override
  public boolean writeDurably(ByteBuffer from, long offset) {
    return false;
  }

  @Override
  public void sync() throws IOException {
    channel.force(false);
  }

  @Override
  public void discard(long offset, long length) {
    // A hint: the data stays.
  }

  @Override
  public boolean zero(long offset, long length, boolean mayPunch, boolean mustBeFast) {
    return false;
  }

  @Override
  public OptionalLong nextData(long offset) {
    return OptionalLong.of(offset);
  }

  @Override
  public OptionalLong nextHole(long offset) throws IOException {
    return OptionalLong.of(channel.size());
  }

  @Override
  public void readAhead(long offset, long length) {
    throw new UnsupportedOperationException("cache");
  }

  @Override
  public void startWriting(long offset, long length) {
    // The system does it when it likes.
  }

  @Override
  public void finishWriting(long offset, long length) throws IOException {
    channel.force(false);
  }

  @Override
  public void dropCached(long offset, long length) {
    // The system does it when it likes.
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
