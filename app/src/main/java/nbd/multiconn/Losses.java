package nbd.multiconn;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.protocol.Printable;
import org.tinylog.Logger;

/**
 * The writes that no flush can cover any more, since the handle on which they were made has broken,
 * or its last flush failed. Every connection of the group that such a write concerns is told once,
 * by a failed flush: more often would keep a server useless long after its clients know, and less
 * often would claim to somebody what is not so. A connection that comes later is told too if nobody
 * has been: it may be the one that lost its writes, come back. So does Linux with files whose
 * writeback failed.
 *
 * <p>A command with FUA fails once as well, since its success would say the same as a flush's. But
 * its client takes that for the fate of this one command, so it does not count as told.
 *
 * <p>Guarded by the group's lock. Invariant: a connection has been told of the losses up to its
 * {@link Member#told}, as far as they concern it.
 */
final class Losses {
  private final Map<String, Loss> latest = new LinkedHashMap<>();

  /** Of whatever export: what was lost when there was no memory to note which. */
  private final Loss unnamed =
      new Loss(0, new NbdException(NbdError.EIO, "writes were lost, and memory was short"));

  private long count;

  /** What was lost last on an export name. */
  private static final class Loss {
    private final NbdException what;
    private long number;
    private boolean told;

    Loss(long number, NbdException what) {
      this.number = number;
      this.what = what;
    }

    boolean isUntold() {
      return number > 0 && !told;
    }
  }

  /** Remembers that writes were lost. */
  void add(String exportName, IOException failure) {
    count++;
    try {
      latest.put(exportName, new Loss(count, described(exportName, failure)));
    } catch (OutOfMemoryError e) {
      unnamed.number = count;
      unnamed.told = false;
    }
  }

  private static NbdException described(String exportName, IOException failure) {
    String lost =
        "writes of a connection to export \"%s\" were lost: ".formatted(Printable.name(exportName));
    String message = lost + failure.getMessage();
    Logger.error("{}; every connection's next flush fails", message);
    NbdError error = NbdException.errorOf(failure);
    // It is the lost writes' server that is gone; those who are told of it have theirs.
    return new NbdException(
        error == NbdError.ESHUTDOWN ? NbdError.EIO : error,
        message,
        lost + NbdException.told(failure),
        failure);
  }

  /** Up to where a connection that comes now need not be told. */
  long toldToAny() {
    long all = unnamed.isUntold() ? Math.min(count, unnamed.number - 1) : count;
    for (Loss loss : latest.values()) {
      if (loss.isUntold()) {
        all = Math.min(all, loss.number - 1);
      }
    }
    return all;
  }

  /** Whether a connection that comes now need not be told of anything. */
  boolean isAllTold() {
    return toldToAny() == count;
  }

  /** What was lost on any export name, and this connection has to be told. */
  List<NbdException> tell(Member member, boolean byFua) {
    return tell(member, latest.values(), byFua);
  }

  /** What was lost on its own export name, and this connection has to be told. */
  List<NbdException> tellOwn(Member member, boolean byFua) {
    Loss own = latest.get(member.scope.exportName);
    return tell(member, own == null ? List.of() : List.of(own), byFua);
  }

  private List<NbdException> tell(Member member, Collection<Loss> losses, boolean byFua) {
    long known = byFua ? Math.max(member.told, member.failedFua) : member.told;
    if (known == count) {
      return List.of();
    }
    List<NbdException> news = new ArrayList<>();
    for (Loss loss : losses) {
      addIfNews(loss, known, byFua, news);
    }
    addIfNews(unnamed, known, byFua, news);
    if (byFua) {
      member.failedFua = count;
    } else {
      member.told = count;
    }
    return news;
  }

  private static void addIfNews(Loss loss, long known, boolean byFua, List<NbdException> news) {
    if (loss.number > known) {
      loss.told |= !byFua;
      news.add(loss.what);
    }
  }
}
