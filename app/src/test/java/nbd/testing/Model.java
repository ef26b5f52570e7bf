package nbd.testing;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Random;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.storage.Handle;
import nbd.storage.Operation;

/** Random calls on a handle, compared with the same on an array. */
public final class Model {
  private final long seed;
  private final Random random;
  private final Handle handle;
  private final byte[] expected;
  private final int[] edges;

  /** Models a handle of zeroes; ranges often begin and end near multiples of the edges. */
  public Model(long seed, Handle handle, int... edges) {
    this(seed, handle, new byte[(int) handle.size()], edges);
  }

  /** Models a handle with that content. */
  public Model(long seed, Handle handle, byte[] content, int... edges) {
    this.seed = seed;
    this.random = new Random(seed);
    this.handle = handle;
    this.expected = content.clone();
    this.edges = edges;
  }

  /** Returns the seed of the property {@code nbd.seed}, or a random one; failures name it. */
  public static long seed() {
    return Long.getLong("nbd.seed", new Random().nextLong());
  }

  /** Makes up to so many calls, and compares everything at the end. */
  public void run(int calls) throws IOException {
    for (int i = 0; i < calls; i++) {
      int from = place();
      int to = place();
      int start = Math.min(from, to);
      int length = Math.max(Math.abs(to - from), 1);
      if (start + length <= expected.length) {
        call(start, length, "seed %d, call %d: %d+%d".formatted(seed, i, start, length));
      }
    }
    check(0, expected.length, "seed %d, at the end".formatted(seed));
  }

  private int place() {
    int edge = edges[random.nextInt(edges.length)];
    int at = random.nextInt(expected.length / edge + 1) * edge + random.nextInt(-2, 3);
    return Math.clamp(
        random.nextInt(4) == 0 ? random.nextInt(expected.length) : at, 0, expected.length);
  }

  private void call(int start, int length, String what) throws IOException {
    switch (random.nextInt(7)) {
      case 0, 1 -> {
        ByteBuffer data = ByteBuffer.allocateDirect(length + 7).position(3).limit(length + 3);
        byte[] bytes = new byte[length];
        random.nextBytes(bytes);
        data.put(bytes).position(3);
        System.arraycopy(bytes, 0, expected, start, length);
        if (random.nextBoolean()
            || !handle.tryNow(Operation.write(data, start, CommandFlags.NONE))) {
          handle.write(data, start, CommandFlags.NONE);
        }
        assertThat(data.position()).as(what).isEqualTo(length + 3);
      }
      case 2 -> {
        boolean noHole = random.nextBoolean();
        handle.zero(
            start, length, noHole ? CommandFlags.of(CommandFlag.NO_HOLE) : CommandFlags.NONE);
        Arrays.fill(expected, start, start + length, (byte) 0);
      }
      case 3 -> {
        handle.trim(start, length, CommandFlags.NONE);
        // Trimmed bytes are undefined: the model takes over those that are read.
        System.arraycopy(read(start, length), 0, expected, start, length);
      }
      case 4 -> handle.flush();
      default -> check(start, length, what);
    }
  }

  private void check(int start, int length, String what) throws IOException {
    assertThat(
            Arrays.equals(read(start, length), Arrays.copyOfRange(expected, start, start + length)))
        .as(what)
        .isTrue();
  }

  private byte[] read(int start, int length) throws IOException {
    ByteBuffer into = ByteBuffer.allocateDirect(length + 9).position(4).limit(length + 4);
    if (random.nextBoolean() || !handle.tryNow(Operation.read(into, start))) {
      assertThat(into.position()).as("where it was").isEqualTo(4);
      handle.read(into, start);
    }
    assertThat(into.position()).isEqualTo(length + 4);
    byte[] bytes = new byte[length];
    into.get(4, bytes);
    return bytes;
  }
}
