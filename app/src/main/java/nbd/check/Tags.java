package nbd.check;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/** The contents of sectors that are checked: every 8 bytes of a sector hold the same value. */
public final class Tags {
  private Tags() {}

  /**
   * Fills a buffer from position to limit with whole sectors, of which the first has this value and
   * each further one the next. The position stays.
   */
  public static void fill(ByteBuffer data, int unit, long value) {
    int begin = data.position();
    for (int at = begin; at < data.limit(); at += Long.BYTES) {
      data.putLong(at, value + (at - begin) / unit);
    }
  }

  /**
   * Returns the value of each sector between a buffer's position and limit, or the values of one
   * that is a mixture.
   */
  public static List<List<Long>> read(ByteBuffer data, int unit) {
    List<List<Long>> contents = new ArrayList<>(data.remaining() / unit);
    for (int at = data.position(); at < data.limit(); at += unit) {
      contents.add(sector(data, at, at + unit));
    }
    return contents;
  }

  private static List<Long> sector(ByteBuffer data, int begin, int end) {
    long first = data.getLong(begin);
    for (int at = begin + Long.BYTES; at < end; at += Long.BYTES) {
      if (data.getLong(at) != first) {
        return mixture(data, begin, end);
      }
    }
    return List.of(first);
  }

  private static List<Long> mixture(ByteBuffer data, int begin, int end) {
    List<Long> values = new ArrayList<>();
    for (int at = begin; at < end; at += Long.BYTES) {
      long value = data.getLong(at);
      if (!values.contains(value)) {
        values.add(value);
      }
    }
    return List.copyOf(values);
  }
}
