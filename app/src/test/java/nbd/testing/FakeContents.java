package nbd.testing;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import nbd.protocol.Command;
import nbd.protocol.NbdError;
import nbd.storage.LostException;

/**
 * The bytes of a {@link FakeBackend}: those that its handles read, and those that would survive a
 * loss of power. Each method is one moment, for threads and for a model checker.
 *
 * <p>A flush makes durable what its handles had written when it began; where a byte was written
 * again meanwhile, it makes the older value durable, unless a newer one already is.
 */
final class FakeContents {
  private byte[] stored;
  private byte[] durable;
  private final boolean cachesPrivately;
  private final List<View> views = new ArrayList<>();

  /** The views opened since the last crash: a flush of all covers the writes of no other. */
  private final List<View> sinceCrash = new ArrayList<>();

  private final List<Flush> running = new ArrayList<>();
  private final List<FakeBackend.Call> begun = new ArrayList<>();
  private final List<FakeBackend.Call> done = new ArrayList<>();
  private final List<Integer> flushed = new ArrayList<>();

  /** The state of one handle; guarded by the contents' monitor. */
  final class View {
    /** The bytes that the handle has written, and that no flush has covered. */
    private final BitSet unflushed = new BitSet();

    private final BitSet cached = new BitSet();
    private final byte[] cache = cachesPrivately ? new byte[stored.length] : new byte[0];
    private int writes;
    private int durableWrites;
    private String broken = "";
    private boolean knows;
  }

  /** A flush that runs. */
  private static final class Flush {
    final Map<View, Covered> covered = new HashMap<>();
    final BitSet forced = new BitSet();
  }

  /** The part of a flush that concerns one handle. */
  private record Covered(BitSet bytes, ByteBuffer values, int writes, BitSet rewritten) {}

  FakeContents(byte[] initial, boolean cachesPrivately) {
    this.stored = initial.clone();
    this.durable = initial.clone();
    this.cachesPrivately = cachesPrivately;
  }

  synchronized View open() {
    View view = new View();
    views.add(view);
    sinceCrash.add(view);
    return view;
  }

  synchronized int size() {
    return stored.length;
  }

  synchronized byte[] stored() {
    return stored.clone();
  }

  synchronized byte[] durable() {
    return durable.clone();
  }

  synchronized long storedAt(int offset) {
    return ByteBuffer.wrap(stored).getLong(offset);
  }

  synchronized long durableAt(int offset) {
    return ByteBuffer.wrap(durable).getLong(offset);
  }

  synchronized void resize(int size) {
    stored = Arrays.copyOf(stored, size);
    durable = Arrays.copyOf(durable, size);
  }

  /** Loses what is not durable, and breaks all handles. */
  synchronized void crash(String why) {
    stored = durable.clone();
    cut(why);
    sinceCrash.clear();
  }

  synchronized void cut(String why) {
    views.forEach(view -> cut(view, why, false));
  }

  /** Breaks a handle; what it has written may still be covered by another one's flush. */
  synchronized void cut(View view, String why, boolean knows) {
    view.broken = view.broken.isEmpty() ? why : view.broken;
    view.knows |= knows;
  }

  synchronized boolean isBroken(View view) {
    return !view.broken.isEmpty();
  }

  /** Returns the reason why a handle is broken; empty while it works, as far as it knows. */
  synchronized String knownBreak(View view) {
    return view.knows ? view.broken : "";
  }

  synchronized void check(View view) throws LostException {
    if (!view.broken.isEmpty()) {
      view.knows = true;
      throw new LostException(NbdError.EIO, view.broken);
    }
  }

  synchronized int writes(View view) {
    return view.writes;
  }

  synchronized int durableWrites(View view) {
    return view.durableWrites;
  }

  synchronized List<FakeBackend.Call> begun() {
    return List.copyOf(begun);
  }

  synchronized List<FakeBackend.Call> takeDone() {
    List<FakeBackend.Call> taken = List.copyOf(done);
    done.clear();
    return taken;
  }

  synchronized void forgetCalls() {
    begun.clear();
    done.clear();
    flushed.clear();
  }

  synchronized void begin(View view, FakeBackend.Call call) {
    begun.add(call);
    if (call.command() == Command.FLUSH) {
      flushed.add(views.indexOf(view));
    }
  }

  synchronized List<Integer> flushed() {
    return List.copyOf(flushed);
  }

  synchronized void end(FakeBackend.Call call) {
    done.add(call);
  }

  synchronized void fetch(View view, int offset, byte[] into) throws LostException {
    check(view);
    System.arraycopy(stored, offset, into, 0, into.length);
    if (cachesPrivately) {
      view.cached.stream()
          .filter(i -> i >= offset && i < offset + into.length)
          .forEach(i -> into[i - offset] = view.cache[i]);
    }
  }

  /** Caches what was fetched, unless the handle has cached something else meanwhile. */
  synchronized void keep(View view, int offset, byte[] fetched) {
    for (int i = 0; cachesPrivately && i < fetched.length; i++) {
      if (!view.cached.get(offset + i)) {
        view.cached.set(offset + i);
        view.cache[offset + i] = fetched[i];
      }
    }
  }

  synchronized void write(View view, int offset, byte[] values, boolean fua) throws LostException {
    check(view);
    int end = offset + values.length;
    System.arraycopy(values, 0, cachesPrivately ? view.cache : stored, offset, values.length);
    if (cachesPrivately) {
      view.cached.set(offset, end);
    }
    if (fua) {
      System.arraycopy(values, 0, stored, offset, values.length);
      System.arraycopy(values, 0, durable, offset, values.length);
      views.forEach(any -> any.unflushed.clear(offset, end));
    } else {
      view.unflushed.set(offset, end);
    }
    for (Flush flush : running) {
      Covered mine = flush.covered.get(view);
      if (mine != null) {
        mine.rewritten.set(offset, end);
      }
      if (fua) {
        flush.forced.set(offset, end);
      }
    }
    view.writes++;
  }

  /** Begins a flush of a handle, or of all, and returns it for {@link #endFlush}. */
  synchronized Object beginFlush(View view, boolean ofAll) {
    Flush flush = new Flush();
    byte[] shared = stored.clone();
    for (View each : ofAll ? sinceCrash : List.of(view)) {
      // Data that was only read is dropped; a running read may still cache its data.
      each.cached.and(each.unflushed);
      flush.covered.put(
          each,
          new Covered(
              (BitSet) each.unflushed.clone(),
              ByteBuffer.wrap(cachesPrivately ? each.cache.clone() : shared),
              each.writes,
              new BitSet()));
    }
    running.add(flush);
    return flush;
  }

  /** Ends a flush, which has covered what had been written when it began. */
  synchronized void endFlush(View view, Object flush) throws LostException {
    check(view);
    Flush ended = (Flush) flush;
    for (Flush earlier : running.subList(0, running.indexOf(ended))) {
      ended.covered.forEach((each, covered) -> outdate(earlier, each, covered.bytes));
    }
    ended.covered.forEach((each, covered) -> cover(each, covered, ended.forced));
    forget(flush);
  }

  /** Leaves bytes out of a flush that holds older ones. */
  private void outdate(Flush earlier, View view, BitSet newer) {
    earlier.covered.forEach(
        (each, covered) -> {
          if (each == view || !cachesPrivately) {
            covered.bytes.andNot(newer);
          }
        });
  }

  private void cover(View view, Covered covered, BitSet forced) {
    BitSet bytes = covered.bytes;
    bytes.andNot(forced);
    for (int i = bytes.nextSetBit(0); i >= 0; i = bytes.nextSetBit(i + 1)) {
      durable[i] = covered.values.get(i);
      if (cachesPrivately) {
        stored[i] = covered.values.get(i);
      }
    }
    bytes.andNot(covered.rewritten);
    view.unflushed.andNot(bytes);
    view.cached.andNot(bytes);
    view.durableWrites = Math.max(view.durableWrites, covered.writes);
  }

  /** Forgets a flush that has ended or failed. */
  synchronized void forget(Object flush) {
    running.remove(flush);
  }
}
