package nbd.check;

import java.io.IOException;
import java.util.List;
import java.util.Optional;

/**
 * A client that runs scripts against a server, each on sectors that no script before has touched
 * since they were written and flushed. One thread may call.
 */
public final class ScriptRunner {
  private final Target target;
  private final Optional<Restart> restart;
  private final Ground ground;

  /** Makes a runner that overwrites the target, and runs no script that restarts the server. */
  public ScriptRunner(Target target) {
    this(target, Optional.empty());
  }

  /** Makes a runner that overwrites the target, and restarts the server for scripts that do. */
  public ScriptRunner(Target target, Optional<Restart> restart) {
    this.target = target;
    this.restart = restart;
    this.ground = new Ground(target);
  }

  Target target() {
    return target;
  }

  /**
   * Runs a script once, on new connections.
   *
   * @throws IOException if the server cannot be connected to or restarted, or the sectors cannot be
   *     prepared; the failure of a step is its answer
   */
  public Replay run(Script script) throws IOException {
    return run(script, connections(false));
  }

  /** Runs a script once, on some connections. */
  Replay run(Script script, Connections connections) throws IOException {
    return run(List.of(script), connections).getFirst();
  }

  /** Runs scripts at a time, as {@link ScriptRun} says. */
  List<Replay> run(List<Script> scripts, Connections connections) throws IOException {
    int sectors = scripts.stream().mapToInt(Script::sectors).max().orElse(0);
    List<Ground.Piece> pieces = ground.take(scripts.size(), sectors);
    try (ScriptRun run = new ScriptRun(target, scripts, pieces, connections)) {
      return run.perform();
    } finally {
      if (scripts.getFirst().restarts()) {
        ground.discard();
      }
    }
  }

  /** Returns the number of scripts that can be run at a time. */
  int mostScripts(int sectors) {
    return ground.mostPieces(sectors);
  }

  /** Returns a source of connections, which are new for each script or used again. */
  Connections connections(boolean areKept) {
    return new Connections(target, restart, areKept);
  }
}
