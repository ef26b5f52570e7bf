package nbd.client;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * The extents of one context in a reply to BLOCK_STATUS, up to a limit, with alike neighbours
 * merged. Used by one thread at a time.
 */
final class ExtentList {
  private final int context;
  private final int most;

  /** Bytes of the range behind the last extent; negative if that reaches past the range. */
  private long asked;

  private final List<StatusExtent> extents = new ArrayList<>();

  /** Bytes of the export behind the last extent. */
  private long left;

  private boolean full;

  /** The contexts of the reply so far; extents of the last one are being added. */
  private final Set<Integer> contexts = new HashSet<>();

  private boolean isAdding;

  /**
   * Begins without extents.
   *
   * @param context the number of the one whose extents are kept
   * @param most limit on their number
   * @param asked length of the range in the request, in bytes
   * @param left length of the export from the start of the range, in bytes
   */
  ExtentList(int context, int most, long asked, long left) {
    this.context = context;
    this.most = most;
    this.asked = asked;
    this.left = left;
  }

  /** Begins a context, whose extents come next; false if it came before. */
  boolean begin(int next) {
    isAdding = next == context;
    return contexts.add(next);
  }

  /**
   * Adds an extent, unless it belongs to another context, there are enough, or it begins behind the
   * range, where no server should name one.
   *
   * @param length in bytes; unsigned, and not 0
   */
  void add(long length, long status) {
    long inside = length < 0 ? left : Math.min(length, left);
    if (!isAdding || full || inside == 0 || asked <= 0) {
      return;
    }
    boolean merges = !extents.isEmpty() && extents.getLast().status() == status;
    if (extents.size() == most && !merges) {
      full = true;
      return;
    }
    long merged = merges ? extents.removeLast().length() : 0;
    extents.add(new StatusExtent(merged + inside, status));
    left -= inside;
    asked -= inside;
  }

  /** Says whether there is no extent yet. */
  boolean isEmpty() {
    return extents.isEmpty();
  }

  /** Returns a copy of the extents. */
  List<StatusExtent> extents() {
    return List.copyOf(extents);
  }
}
