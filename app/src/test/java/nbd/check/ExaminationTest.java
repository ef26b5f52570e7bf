package nbd.check;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.function.Predicate;
import nbd.check.Verdict.Answer;
import nbd.client.ClientSettings;
import nbd.client.NbdUri;
import nbd.testing.Eventually;
import nbd.testing.RawClient;
import nbd.testing.Running;
import nbd.testing.ScriptedServer;
import nbd.testing.ScriptedServer.Asked;
import nbd.testing.ScriptedServer.Peer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** {@link Examination}, where it is ended early and the server does not answer. */
@Timeout(300)
final class ExaminationTest {
  private static final int CONNECTIONS = 4;
  private static final int ANSWERED = 1000;
  private static final int FUA = 1;
  private static final int LONGEST_OF_FIRST_CONTENTS = 512 * Driver.SECTORS;
  private static final Duration LONG = Duration.ofHours(1);
  private static final Duration SHORT = Duration.ofSeconds(3);

  /** A server that answers no more, and makes no connection, from some request on. */
  private static class Hanging extends WireServer {
    private final Predicate<Asked> begin;
    private volatile boolean hangs;

    Hanging(Predicate<Asked> begin) {
      this.begin = begin;
    }

    @Override
    public void play(Peer client) throws IOException {
      if (hangs) {
        client.request();
      }
      super.play(client);
    }

    @Override
    void answer(Peer client, Asked asked) throws IOException {
      hangs |= begin.test(asked);
      if (!hangs) {
        super.answer(client, asked);
      }
    }
  }

  private static Verdict soFar(Hanging hanging, Duration duration, int longest) throws Exception {
    try (ScriptedServer server = ScriptedServer.always(hanging)) {
      Examination examination = examination(server, duration, longest, Optional.empty());
      Running.start(examination::run);
      Eventually.isTrue("the server hangs", () -> hanging.hangs);
      return soFar(examination);
    }
  }

  private static Examination examination(
      ScriptedServer server, Duration duration, int longest, Optional<Restart> restart)
      throws IOException {
    ClientSettings patient = new ClientSettings(Duration.ofMinutes(1), Duration.ofMinutes(1));
    return new Examination(
        Target.open(NbdUri.parse(server.uri()), patient),
        new Plan(CONNECTIONS, duration, 1, longest, restart, Optional.empty()));
  }

  private static Verdict soFar(Examination examination) throws IOException {
    examination.stop();
    Verdict verdict = examination.abandon();
    assertThat(verdict.isComplete()).isFalse();
    assertThat(verdict.findings()).isEmpty();
    return verdict;
  }

  @Test
  void inTheFirstContents() throws Exception {
    Verdict verdict = soFar(new Hanging(asked -> asked.type() == RawClient.WRITE), LONG, 0);
    assertThat(verdict.isKept()).isTrue();
    assertThat(verdict.flushConsistent()).isEqualTo(Answer.NOT_TESTED);
  }

  @Test
  void inTheRandomHistory() throws Exception {
    int[] asked = {0};
    Verdict verdict = soFar(new Hanging(request -> ++asked[0] > ANSWERED), LONG, 0);
    assertThat(verdict.isKept()).isTrue();
    assertThat(verdict.counts().requests()).isPositive();
  }

  @Test
  void inTheShortHistories() throws Exception {
    Verdict verdict = soFar(new Hanging(asked -> asked.flags() == FUA), LONG, 3);
    assertThat(verdict.isKept()).isTrue();
    assertThat(verdict.counts().scripts()).isPositive();
  }

  @Test
  void inTheSearchForASmallHistory() throws Exception {
    Hanging forgetful =
        new Hanging(asked -> asked.length() > LONGEST_OF_FIRST_CONTENTS) {
          @Override
          void data(Peer client, Asked asked, byte[] data) throws IOException {
            super.data(client, asked, new byte[data.length]);
          }
        };
    Verdict verdict = soFar(forgetful, LONG, 0);
    assertThat(verdict.isKept()).isFalse();
    assertThat(verdict.flushConsistent()).isEqualTo(Answer.NO);
    assertThat(verdict.proofs().getFirst().counterexample()).isEmpty();
    assertThat(verdict.proofs().getFirst().violation().history()).isNotEmpty();
  }

  @Test
  void inTheExaminationOfWhatIsAdvertised() throws Exception {
    Verdict verdict =
        soFar(
            new Hanging(asked -> asked.type() == RawClient.READ && asked.flags() == FUA), SHORT, 0);
    assertThat(verdict.isKept()).isTrue();
    assertThat(verdict.flushConsistent()).isEqualTo(Answer.YES);
  }

  @Test
  void inARestart() throws Exception {
    CompletableFuture<Void> begun = new CompletableFuture<>();
    CompletableFuture<Void> end = new CompletableFuture<>();
    Restart restart =
        () -> {
          begun.complete(null);
          end.join();
          throw new IOException("the command was ended, too, as by a signal of the terminal");
        };
    try (ScriptedServer server = ScriptedServer.always(new WireServer())) {
      Examination examination = examination(server, LONG, 0, Optional.of(restart));
      Running run = Running.start(examination::run);
      begun.join();
      assertThat(soFar(examination).isKept()).isTrue();
      end.complete(null);
      run.join();
    }
  }
}
