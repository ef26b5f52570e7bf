package nbd.check;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Collectors;
import nbd.check.HistoryChecker.Flush;
import nbd.check.HistoryChecker.Read;
import nbd.check.HistoryChecker.Write;
import nbd.check.Replay.Found;
import nbd.check.Step.Kind;
import nbd.check.Violation.Level;
import nbd.client.NbdClient;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdException;
import nbd.storage.LostException;
import nbd.storage.Operation;

/** One script of a {@link ScriptRun}: its sectors, its judge and the answers to its steps. */
final class Trial {
  /** The connection that wrote the first contents. */
  private static final int PREPARER = -1;

  private final Target target;
  private final Script script;
  private final Ground.Piece ground;
  private final RecentEvents recent = new RecentEvents();
  private final HistoryChecker judge;
  private final String[] answers;

  /** The judge's value for the first contents of each sector. */
  private final List<Long> first = new ArrayList<>();

  /** The origin of each of the judge's values, for people. */
  private final Map<Long, String> writers = new ConcurrentHashMap<>();

  private final ConcurrentLinkedQueue<Found> found = new ConcurrentLinkedQueue<>();

  Trial(Target target, Script script, Ground.Piece ground) {
    this.target = target;
    this.script = script;
    this.ground = ground;
    this.judge =
        new HistoryChecker(
            new Event.Start(script.sectors(), false),
            EnumSet.allOf(Level.class),
            0,
            script.restarts() ? recent : event -> {});
    this.answers = new String[script.steps().size()];
    reportFirstContents();
  }

  /** Makes the first contents known to the judge: a write with FUA is known to all. */
  private void reportFirstContents() {
    for (int sector = 0; sector < script.sectors(); sector++) {
      Kind kind = ground.first().get(sector) == 0 ? Kind.ZERO : Kind.WRITE;
      Write write = judge.beginWrite(PREPARER, kind, sector, 1, true);
      judge.endWrite(write, true);
      first.add(write.value());
      writers.put(write.value(), "the first contents");
    }
  }

  Step step(int index) {
    return script.steps().get(index);
  }

  Replay replay() {
    return new Replay(
        script,
        target.offsetOf(ground.sector()),
        target.unit(),
        Arrays.asList(answers),
        List.copyOf(found));
  }

  void answered(int index, String answer) {
    answers[index] = answer;
  }

  void close(int connection, boolean cut) {
    judge.close(connection, cut);
  }

  void crash() {
    judge.crash();
  }

  Flush beginFlush(int connection) {
    return judge.beginFlush(connection);
  }

  void endFlush(Flush flush, boolean succeeded) {
    judge.endFlush(flush, succeeded);
  }

  /** Makes a request on a range, and notes the answer. */
  void request(int index, NbdClient client) {
    Step step = step(index);
    try {
      answered(
          index,
          step.kind() == Kind.READ ? read(index, step, client) : change(index, step, client));
    } catch (IOException failure) {
      answered(index, answer(failure));
    }
  }

  /** Returns the answer, for people, to a request that failed. */
  static String answer(IOException failure) {
    return switch (failure) {
      case LostException _ -> "no answer";
      case NbdException refused -> refused.error().toString();
      default -> String.valueOf(failure.getMessage());
    };
  }

  private String change(int index, Step step, NbdClient client) throws IOException {
    Write write =
        judge.beginWrite(step.connection(), step.kind(), step.sector(), step.sectors(), step.fua());
    boolean succeeded = false;
    try {
      client.run(operation(step, data(index, step, write)));
      succeeded = true;
    } finally {
      judge.endWrite(write, succeeded);
    }
    return "ok";
  }

  private ByteBuffer data(int index, Step step, Write write) {
    ByteBuffer data = ByteBuffer.allocateDirect(step.sectors() * target.unit());
    if (step.kind() == Kind.WRITE) {
      for (int i = 0; i < step.sectors(); i++) {
        writers.put(write.value() + i, "step " + (index + 1));
      }
      Tags.fill(data, target.unit(), ground.tag() + write.value());
    }
    return data;
  }

  private Operation operation(Step step, ByteBuffer data) {
    long offset = target.offsetOf(ground.sector() + step.sector());
    CommandFlags flags = step.fua() ? CommandFlags.of(CommandFlag.FUA) : CommandFlags.NONE;
    return switch (step.kind()) {
      case ZERO -> Operation.onRange(Command.WRITE_ZEROES, offset, data.remaining(), flags);
      case TRIM -> Operation.onRange(Command.TRIM, offset, data.remaining(), flags);
      default -> Operation.write(data, offset, flags);
    };
  }

  private String read(int index, Step step, NbdClient client) throws IOException {
    ByteBuffer data = ByteBuffer.allocateDirect(step.sectors() * target.unit());
    Read read = judge.beginRead(step.connection(), step.sector(), step.sectors());
    try {
      client.read(data, target.offsetOf(ground.sector() + step.sector()));
    } catch (IOException failure) {
      judge.failRead(read);
      throw failure;
    }
    List<List<Long>> contents = new ArrayList<>();
    for (List<Long> tags : Tags.read(data.flip(), target.unit())) {
      contents.add(tags.stream().map(tag -> value(tag, step.sector() + contents.size())).toList());
    }
    judge
        .endRead(read, contents)
        .ifPresent(
            bad ->
                found.add(
                    new Found(
                        index,
                        bad.sector(),
                        bad,
                        described(bad.allowed(), " or "),
                        Durability.isBroken(bad, recent.list()))));
    return contents.stream()
        .map(values -> described(values, " mixed with "))
        .collect(Collectors.joining(", "));
  }

  /** Returns the judge's value for what a sector holds. */
  private long value(long tag, int sector) {
    if (tag == ground.first().get(sector)) {
      return first.get(sector);
    }
    return tag == 0 ? 0 : tag - ground.tag();
  }

  private String described(List<Long> values, String separator) {
    return values.stream()
        .map(value -> value == 0 ? "zeroes" : writers.getOrDefault(value, "data that nobody wrote"))
        .distinct()
        .collect(Collectors.joining(separator));
  }
}
