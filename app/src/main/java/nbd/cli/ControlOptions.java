package nbd.cli;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.function.Predicate;
import nbd.control.ControlClient;
import nbd.server.Exports;
import nbd.takeover.Predecessor;
import nbd.takeover.TakingServer;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** The options of serve for the control socket, and for taking over the server that has it. */
final class ControlOptions {
  private static final String CONTROL = "--control";
  private static final String TAKE_OVER = "--take-over";
  private static final String TIMEOUT = "--take-over-timeout";

  @Option(
      names = CONTROL,
      paramLabel = "SOCKET",
      description =
          "Answer the command control on this Unix socket, which only this user can use; it is"
              + " removed at exit.")
  private @Nullable Path control;

  @Option(
      names = TAKE_OVER,
      description =
          "Take over from the server that answers on the socket of --control: its clients,"
              + " listening sockets and locked images. That server ends.")
  private boolean takeOver;

  @Option(
      names = TIMEOUT,
      paramLabel = "DURATION",
      defaultValue = "10s",
      description =
          "With --control: go on serving if a server that takes over is not ready after this long"
              + " (default: ${DEFAULT-VALUE}).")
  private Duration takeOverTimeout = Duration.ofSeconds(10);

  /** Throws a {@link UsageException} if the options are wrong. */
  void check(Predicate<String> isGiven) {
    if (control == null) {
      UsageException.refuse(List.of(TAKE_OVER, TIMEOUT), isGiven, "only with " + CONTROL);
    }
    if (takeOver) {
      UsageException.refuse(
          List.of("--single", "--run"),
          isGiven,
          "not with " + TAKE_OVER + ", which goes on with another server's clients");
    }
    UsageException.refuseIf(takeOverTimeout.isZero(), TIMEOUT + ": has to be longer than 0");
  }

  /** Says whether there is a control socket. */
  boolean isGiven() {
    return control != null;
  }

  /** Makes the control socket of a service, if there is one. */
  Optional<ControlSocket> socket(Exports exports, Service service, ExportChanges changes) {
    return Optional.ofNullable(control)
        .map(
            path ->
                new ControlSocket(
                    path, ControlRequests.of(exports, service, changes, takeOverTimeout)));
  }

  /**
   * Makes the other server stop serving and hand everything over, if one is to be taken over.
   *
   * @throws IOException if there is none, or it refuses; the message is for the user
   */
  Optional<Predecessor> begin() throws IOException {
    if (control == null || !takeOver) {
      return Optional.empty();
    }
    try {
      ControlClient client = ControlClient.connect(control);
      client.request(TakingServer.REQUEST);
      return Optional.of(new TakingServer(client.channel()));
    } catch (IOException failure) {
      throw new IOException(
          "no take-over of the server at %s: %s".formatted(control, Failure.reason(failure)),
          failure);
    }
  }
}
