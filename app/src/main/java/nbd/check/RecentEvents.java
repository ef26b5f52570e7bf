package nbd.check;

import java.util.ArrayDeque;
import java.util.List;
import java.util.function.Consumer;

/** The last events of a history. */
final class RecentEvents implements Consumer<Event> {
  private static final int MOST = 4096;

  private final ArrayDeque<Event> events = new ArrayDeque<>();

  @Override
  public synchronized void accept(Event event) {
    if (events.size() == MOST) {
      events.removeFirst();
    }
    events.addLast(event);
  }

  /** Returns the events, oldest first. */
  synchronized List<Event> list() {
    return List.copyOf(events);
  }
}
