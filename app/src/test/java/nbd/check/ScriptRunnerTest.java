package nbd.check;

import static org.assertj.core.api.Assertions.assertThat;

import java.net.UnixDomainSocketAddress;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import nbd.check.FaultyStorage.Fault;
import nbd.check.Step.Kind;
import nbd.check.Violation.Level;
import nbd.client.ClientSettings;
import nbd.client.NbdUri;
import nbd.memory.MemoryBackend;
import nbd.server.TestServer;
import nbd.storage.Backend;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class ScriptRunnerTest {
  private static final Script FLUSHED_ELSEWHERE =
      Script.of(
          Step.of(0, Kind.WRITE, 0, 2),
          Step.of(1, Kind.READ, 1, 1),
          Step.of(0, Kind.FLUSH),
          Step.of(1, Kind.READ, 0, 2));

  static Target target(TestServer server) throws Exception {
    UnixDomainSocketAddress address = (UnixDomainSocketAddress) server.address();
    return Target.open(NbdUri.unix(address.getPath(), ""), ClientSettings.DEFAULT);
  }

  private static Replay run(Backend storage, Script script) throws Exception {
    try (TestServer server = TestServer.of(storage)) {
      return new ScriptRunner(target(server)).run(script);
    }
  }

  @Test
  void aRightServerShowsNothing() throws Exception {
    Replay replay = run(new MemoryBackend(8 << 20), FLUSHED_ELSEWHERE);
    assertThat(replay.found()).isEmpty();
    assertThat(replay.answers()).containsExactly("ok", "step 1", "ok", "step 1, step 1");
  }

  @Test
  void aBrokenServerShowsTheReadThatIsTooOld() throws Exception {
    Replay replay = run(new FaultyStorage(Fault.FLUSH_OF_ONE), FLUSHED_ELSEWHERE);
    assertThat(replay.answers())
        .containsExactly("ok", "the first contents", "ok", "step 1, the first contents");
    assertThat(replay.first(Level.FLUSH))
        .hasValueSatisfying(found -> assertThat(found.step()).isEqualTo(3));
  }

  @Test
  void connectionsAreClosedAndCutWithinAScript() throws Exception {
    Script script =
        Script.of(
            Step.of(0, Kind.WRITE, 0, 1).overlapping(1),
            Step.of(1, Kind.READ, 0, 1),
            Step.of(0, Kind.CLOSE),
            Step.of(1, Kind.CUT),
            Step.of(0, Kind.FLUSH),
            Step.of(1, Kind.READ, 0, 1));
    Replay replay = run(new MemoryBackend(8 << 20), script);
    assertThat(replay.found()).isEmpty();
    assertThat(replay.answers().getLast()).isEqualTo("step 1");
  }

  @Test
  void noScriptIsBlamedForWhatARestartBeforeItHasDone(@TempDir Path directory) throws Exception {
    Script restarting =
        Script.of(
            Step.of(0, Kind.WRITE, 0, 1),
            Step.of(0, Kind.FLUSH),
            Step.of(0, Kind.RESTART),
            Step.of(0, Kind.READ, 0, 1));
    Script innocent = Script.of(Step.of(0, Kind.WRITE, 0, 1), Step.of(1, Kind.READ, 0, 1));
    try (CrashingServer server =
        new CrashingServer(new FaultyStorage(Fault.RESURRECTED), directory.resolve("server"))) {
      ScriptRunner runner = new ScriptRunner(server.target(), Optional.of(server));
      assertThat(runner.run(restarting).first(Level.FLUSH)).isPresent();
      assertThat(runner.run(innocent).first(Level.FLUSH)).isEmpty();
    }
  }

  @Test
  void scriptsThatRunAtATimeAreJudgedEachByItself() throws Exception {
    Script elsewhere =
        Script.of(
            Step.of(0, Kind.WRITE, 0, 1),
            Step.of(0, Kind.READ, 0, 1),
            Step.of(0, Kind.FLUSH),
            Step.of(0, Kind.READ, 0, 1));
    try (TestServer server = TestServer.of(new FaultyStorage(Fault.FLUSH_OF_ONE))) {
      ScriptRunner runner = new ScriptRunner(target(server));
      List<Replay> replays =
          runner.run(
              List.of(FLUSHED_ELSEWHERE, elsewhere, FLUSHED_ELSEWHERE), runner.connections(false));
      assertThat(replays)
          .extracting(replay -> replay.first(Level.FLUSH).isPresent())
          .containsExactly(true, false, true);
      assertThat(replays.get(1).answers()).containsExactly("ok", "step 1", "ok", "step 1");
    }
  }

  @Test
  void aRestartLosesWhatIsNotFlushed(@TempDir Path directory) throws Exception {
    Script script =
        Script.of(
            Step.of(0, Kind.WRITE, 0, 1).withFua(),
            Step.of(1, Kind.WRITE, 1, 1),
            Step.of(0, Kind.RESTART),
            Step.of(1, Kind.READ, 0, 2));
    FaultyStorage storage = new FaultyStorage(Fault.NONE);
    try (CrashingServer server = new CrashingServer(storage, directory.resolve("socket"))) {
      Replay replay = new ScriptRunner(server.target(), Optional.of(server)).run(script);
      assertThat(replay.answers()).containsExactly("ok", "ok", "ok", "step 1, the first contents");
      assertThat(replay.found()).isEmpty();
    }
  }
}
