package nbd.multiconn;

import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import org.tinylog.Logger;

/**
 * The writes that no flush can cover any more, since the handle on which they were made has broken,
 * or its last flush failed. Every connection of the group that such a write concerns is told once,
 * by a failed flush: more often would keep a server useless long after its clients know, and less
 * often would claim to somebody what is not so. A connection that comes later is told too if nobody
 * has been: it may be the one that lost its writes, come back. So does Linux with files whose
 * writeback failed.
 *
 * <p>Guarded by the group's lock. Invariant: a connection has been told of the losses up to its
 * {@link Member#told}, as far as they concern it.
 */
final class Losses {
  private final Map<String, Loss> latest = new LinkedHashMap<>();
  private long count;

  /** What was lost last on an export name. */
  private static final class Loss {
    private final long number;
    private final NbdException what;
    private boolean told;

    Loss(long number, NbdException what) {
      this.number = number;
      this.what = what;
    }
  }

  /** Remembers that writes were lost. */
  void add(String exportName, IOException failure) {
    count++;
    String message =
        "writes of a connection to export \"%s\" were lost: %s"
            .formatted(exportName, failure.getMessage());
    Logger.error("{}; every connection's next flush fails", message);
    NbdError error = NbdException.errorOf(failure);
    // It is the lost writes' server that is gone; those who are told of it have theirs.
    NbdException what =
        new NbdException(error == NbdError.ESHUTDOWN ? NbdError.EIO : error, message);
    what.initCause(failure);
    latest.put(exportName, new Loss(count, what));
  }

  /** Up to where a connection that comes now need not be told. */
  long toldToAny() {
    long all = count;
    for (Loss loss : latest.values()) {
      if (!loss.told) {
        all = Math.min(all, loss.number - 1);
      }
    }
    return all;
  }

  /** Whether a connection that comes now need not be told of anything. */
  boolean isAllTold() {
    return toldToAny() == count;
  }

  /** What was lost on any export name, and this connection has not been told. */
  List<NbdException> tell(Member member) {
    List<NbdException> news = new ArrayList<>();
    latest.values().forEach(loss -> tell(member, loss, news));
    member.told = count;
    return news;
  }

  /** What was lost on its own export name, and this connection has not been told. */
  List<NbdException> tellOwn(Member member) {
    List<NbdException> news = new ArrayList<>();
    Loss own = latest.get(member.scope.exportName);
    if (own != null) {
      tell(member, own, news);
      member.told = count;
    }
    return news;
  }

  private static void tell(Member member, Loss loss, List<NbdException> news) {
    if (loss.number > member.told) {
      loss.told = true;
      news.add(loss.what);
    }
  }
}
