package nbd.check;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.locks.LockSupport;
import nbd.check.HistoryChecker.Flush;
import nbd.check.Step.Kind;
import nbd.client.NbdClient;

/**
 * One run of a script, or of several at a time, step by step: no script's next step is begun before
 * all have made this one. They share the connections and have sectors of their own. Where one
 * flushes, closes, cuts or restarts, all do it, by one request.
 *
 * <p>A step that overlaps the next ones, or is made by several scripts, has a thread of its own.
 */
final class ScriptRun implements AutoCloseable {
  /**
   * Limit on the pause, in half of the runs, before a step that is sent while others are in flight:
   * what it meets in the server depends on it.
   */
  private static final long LONGEST_PAUSE = Duration.ofNanos(400_000).toNanos();

  private final boolean pauses = ThreadLocalRandom.current().nextBoolean();

  private final List<Trial> trials = new ArrayList<>();

  /** The steps of the first script. */
  private final List<Step> steps;

  private final Connections connections;

  /** The connections by the scripts' numbers. */
  private final List<NbdClient> clients = new ArrayList<>();

  private final List<List<Thread>> threads = new ArrayList<>();

  /** Connects, and takes the sectors of the ground. */
  ScriptRun(Target target, List<Script> scripts, List<Ground.Piece> pieces, Connections connections)
      throws IOException {
    this.connections = connections;
    this.steps = scripts.getFirst().steps();
    for (int i = 0; i < scripts.size(); i++) {
      trials.add(new Trial(target, scripts.get(i), pieces.get(i)));
    }
    int most = scripts.stream().mapToInt(Script::connections).max().orElse(0);
    try {
      while (clients.size() < most) {
        clients.add(connections.take());
      }
    } catch (IOException failure) {
      close();
      throw failure;
    }
  }

  /** Runs the steps. Called once. */
  List<Replay> perform() throws IOException {
    for (int i = 0; i < steps.size(); i++) {
      boolean isAlone = true;
      for (int before = 0; before < i; before++) {
        if (before + steps.get(before).overlap() < i) {
          threads.get(before).forEach(ScriptRun::join);
        } else {
          isAlone = false;
        }
      }
      if (!isAlone && pauses) {
        LockSupport.parkNanos(ThreadLocalRandom.current().nextLong(LONGEST_PAUSE));
      }
      threads.add(new ArrayList<>());
      begin(i);
    }
    joinAll();
    return trials.stream().map(Trial::replay).toList();
  }

  private void begin(int index) throws IOException {
    Step step = steps.get(index);
    switch (step.kind()) {
      case CLOSE, CUT -> connectAgain(step);
      case RESTART -> restart();
      case FLUSH -> start(index, () -> flush(index, step.connection()));
      default ->
          trials.forEach(
              trial -> {
                NbdClient client = clients.get(trial.step(index).connection());
                start(index, () -> trial.request(index, client));
              });
    }
    if (!step.kind().hasRange() && step.kind() != Kind.FLUSH) {
      trials.forEach(trial -> trial.answered(index, "ok"));
    }
  }

  private void start(int index, Runnable request) {
    if (steps.get(index).overlap() == 0 && trials.size() == 1) {
      request.run();
    } else {
      threads.get(index).add(Thread.startVirtualThread(request));
    }
  }

  private void flush(int index, int connection) {
    List<Flush> flushes = trials.stream().map(trial -> trial.beginFlush(connection)).toList();
    String answer = "ok";
    boolean succeeded = false;
    try {
      clients.get(connection).flush();
      succeeded = true;
    } catch (IOException failure) {
      answer = Trial.answer(failure);
    }
    for (int i = 0; i < trials.size(); i++) {
      trials.get(i).endFlush(flushes.get(i), succeeded);
      trials.get(i).answered(index, answer);
    }
  }

  private void connectAgain(Step step) throws IOException {
    int connection = step.connection();
    boolean isCut = step.kind() == Kind.CUT;
    if (isCut) {
      clients.get(connection).cut();
    } else {
      clients.get(connection).close();
    }
    trials.forEach(trial -> trial.close(connection, isCut));
    clients.set(connection, connections.connect());
  }

  private void restart() throws IOException {
    connections.restart();
    clients.forEach(NbdClient::close);
    joinAll();
    trials.forEach(Trial::crash);
    for (int i = 0; i < clients.size(); i++) {
      clients.set(i, connections.connectAgain());
    }
  }

  private void joinAll() {
    threads.forEach(some -> some.forEach(ScriptRun::join));
  }

  private static void join(Thread thread) {
    boolean interrupted = false;
    while (thread.isAlive()) {
      try {
        thread.join();
      } catch (InterruptedException later) {
        interrupted = true;
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  @Override
  public void close() {
    clients.forEach(connections::giveBack);
  }
}
