package nbd.interop;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import nbd.testing.Eventually;

/**
 * The log of nbdkit's log filter: the requests that began and returned on each connection, in
 * order. The filter writes a line before it goes on.
 */
final class NbdkitLog {
  private static final Pattern LINE =
      Pattern.compile(
          "\\S+ \\S+ connection=(\\d+) (?:(\\w+) id=(\\d+).* \\.\\.\\.|\\.\\.\\.(\\w+) id=(\\d+) .*"
              + "|Disconnect .*)");

  private final Path file;

  /** Reads the file that the filter writes. */
  NbdkitLog(Path file) {
    this.file = file;
  }

  /** A line about a request, or about the end of a connection. */
  record Event(int connection, String what, long id, boolean begin) {
    /** Says whether such a request of a connection begins here. */
    boolean begins(String request, int on) {
      return begin && what.equals(request) && connection == on;
    }

    /** Says whether such a request of a connection returns here. */
    boolean returns(String request, int on) {
      return !begin && what.equals(request) && connection == on;
    }
  }

  /** Returns the events so far, without a line that is being written. */
  List<Event> events() {
    String text;
    try {
      text = Files.exists(file) ? Files.readString(file) : "";
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
    List<Event> events = new ArrayList<>();
    Matcher matcher = LINE.matcher(text.substring(0, text.lastIndexOf('\n') + 1));
    while (matcher.find()) {
      int connection = Integer.parseInt(matcher.group(1));
      if (matcher.group(2) != null) {
        events.add(new Event(connection, matcher.group(2), Long.parseLong(matcher.group(3)), true));
      } else if (matcher.group(4) != null) {
        events.add(
            new Event(connection, matcher.group(4), Long.parseLong(matcher.group(5)), false));
      } else {
        events.add(new Event(connection, "Disconnect", 0, false));
      }
    }
    return events;
  }

  /** Returns the connections whose flush began, in this order. */
  List<Integer> flushed() {
    return events().stream()
        .filter(event -> event.begin() && event.what().equals("Flush"))
        .map(Event::connection)
        .toList();
  }

  /** Returns the connections whose flush began after so many others. */
  List<Integer> flushedAfter(int others) {
    List<Integer> all = flushed();
    return all.subList(others, all.size());
  }

  /** Waits until such a request of a connection has begun for the nth time. */
  void awaitBegun(String request, int connection, int times) throws InterruptedException {
    Eventually.isTrue(
        "%s begins on connection %d for the %dth time".formatted(request, connection, times),
        () -> events().stream().filter(e -> e.begins(request, connection)).count() >= times);
  }

  /** Waits until such a request of a connection has returned for the nth time. */
  void awaitReturned(String request, int connection, int times) throws InterruptedException {
    Eventually.isTrue(
        "%s returns on connection %d for the %dth time".formatted(request, connection, times),
        () -> events().stream().filter(e -> e.returns(request, connection)).count() >= times);
  }

  /** Waits until so many connections have ended. */
  void awaitDisconnected(int connections) throws InterruptedException {
    Eventually.isTrue(
        connections + " connections have ended",
        () -> events().stream().filter(e -> e.what().equals("Disconnect")).count() >= connections);
  }

  /** Finds the place in the log where such a request of a connection begins for the nth time. */
  int begin(String request, int connection, int times) {
    return place(true, request, connection, times);
  }

  /** Finds the place in the log where such a request of a connection returns for the nth time. */
  int end(String request, int connection, int times) {
    return place(false, request, connection, times);
  }

  private int place(boolean begin, String request, int connection, int times) {
    List<Event> events = events();
    int seen = 0;
    for (int i = 0; i < events.size(); i++) {
      Event event = events.get(i);
      if (begin ? event.begins(request, connection) : event.returns(request, connection)) {
        seen++;
        if (seen == times) {
          return i;
        }
      }
    }
    throw new AssertionError(
        "%s on connection %d, time %d, is not in %s".formatted(request, connection, times, events));
  }

  /** Counts the most requests of this kind that were in progress at a time. */
  int mostTogether(String request) {
    Map<String, Boolean> running = new HashMap<>();
    int most = 0;
    for (Event event : events()) {
      if (event.what().equals(request)) {
        String key = event.connection() + " " + event.id();
        if (event.begin()) {
          running.put(key, true);
        } else {
          running.remove(key);
        }
        most = Math.max(most, running.size());
      }
    }
    return most;
  }
}
