package nbd.storage;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.protocol.Printable;
import org.tinylog.Logger;

/**
 * The answered writes that no flush can cover any more, by the names of their exports. A loss is
 * reported once to every client that it concerns, by a failed flush: more often would keep a server
 * useless long after its clients know, and less often would promise a client what is not so. It is
 * reported to a client that comes later too if it was to none: that may be the one that lost its
 * writes, come back. Linux does the same with files whose writeback failed.
 *
 * <p>A command with FUA fails once as well, since its success would say the same as a flush's. But
 * its client takes the failure for that command's own, so that is no report.
 *
 * <p>Any thread may call. Invariant, guarded by the monitor: the losses up to a client's {@link
 * Position} were reported to it, as far as they concern it.
 */
public final class Losses {
  private final Map<String, Loss> latest = new LinkedHashMap<>();

  /** A loss on any export, when there was no memory to note which. */
  private final Loss unnamed =
      new Loss(new LostWritesException("writes were lost, and memory was short", null), 0);

  /** The number of the latest loss; 0 if there is none. */
  private long newest;

  private final Queue<String> unlogged = new ConcurrentLinkedQueue<>();

  /** The latest loss on an export name. */
  private static final class Loss {
    private final LostWritesException what;
    private long number;
    private boolean isReported;

    Loss(LostWritesException what, long number) {
      this.what = what;
      this.number = number;
    }

    boolean isUnreported() {
      return number > 0 && !isReported;
    }
  }

  /** The number of the last loss that was reported to a client, and that failed a FUA of its. */
  public static final class Position {
    private long reported;
    private long failedFua;

    private Position(long reported) {
      this.reported = reported;
    }
  }

  /** Remembers that writes were lost; {@link #log} logs it. */
  public synchronized void add(String exportName, IOException failure) {
    try {
      LostWritesException what = described(exportName, failure);
      newest = what.number();
      latest.put(exportName, new Loss(what, newest));
      unlogged.add(String.valueOf(what.getMessage()));
    } catch (OutOfMemoryError e) {
      newest = LostWritesException.nextNumber();
      unnamed.number = newest;
      unnamed.isReported = false;
    }
  }

  private static LostWritesException described(String exportName, IOException failure) {
    String lost = "writes to export \"%s\" were lost: ".formatted(Printable.name(exportName));
    NbdError error = NbdException.errorOf(failure);
    // The lost writes' server may be gone; that of the clients that get the report is not.
    return new LostWritesException(
        error == NbdError.ESHUTDOWN ? NbdError.EIO : error,
        lost + failure.getMessage(),
        lost + NbdException.messageForClient(failure),
        failure,
        LostWritesException.nextNumber());
  }

  /** Logs what was added. It may wait for the log, so the caller holds no lock. */
  public void log() {
    for (String what = unlogged.poll(); what != null; what = unlogged.poll()) {
      Logger.error("{}; every connection's next flush fails", what);
    }
  }

  /** Gives the position of a client that comes now. */
  public synchronized Position join() {
    long all = unnamed.isUnreported() ? unnamed.number - 1 : newest;
    for (Loss loss : latest.values()) {
      if (loss.isUnreported()) {
        all = Math.min(all, loss.number - 1);
      }
    }
    return new Position(all);
  }

  /** Gives a loss that was reported to no client. */
  public synchronized Optional<String> unreported() {
    if (unnamed.isUnreported()) {
      return Optional.ofNullable(unnamed.what.getMessage());
    }
    return latest.values().stream()
        .filter(Loss::isUnreported)
        .findFirst()
        .map(loss -> loss.what.getMessage());
  }

  /** Reports the losses on any export name; gives those that were not reported to this client. */
  public synchronized List<LostWritesException> report(Position to, boolean byFua) {
    return report(to, latest.values(), byFua);
  }

  /** Reports the losses on one export name; gives those that were not reported to this client. */
  public synchronized List<LostWritesException> report(
      Position to, String exportName, boolean byFua) {
    Loss own = latest.get(exportName);
    return report(to, own == null ? List.of() : List.of(own), byFua);
  }

  private List<LostWritesException> report(Position to, Collection<Loss> losses, boolean byFua) {
    long known = byFua ? Math.max(to.reported, to.failedFua) : to.reported;
    if (known >= newest) {
      return List.of();
    }
    List<LostWritesException> news = new ArrayList<>();
    for (Loss loss : losses) {
      addIfNews(loss, known, byFua, news);
    }
    addIfNews(unnamed, known, byFua, news);
    if (byFua) {
      to.failedFua = newest;
    } else {
      to.reported = newest;
    }
    return news;
  }

  private static void addIfNews(
      Loss loss, long known, boolean byFua, List<LostWritesException> news) {
    if (loss.number > known) {
      loss.isReported |= !byFua;
      news.add(loss.what.copy());
    }
  }
}
