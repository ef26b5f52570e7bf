package nbd.interop;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assertions.fail;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.URI;
import java.net.UnixDomainSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import nbd.testing.Eventually;

/** {@code serve} in a process of its own, from the jar. */
final class ServeProcess implements AutoCloseable {
  private static final String READY = "nbd-multiconn: ready ";
  private static final long HANG_SECONDS = 60;

  private final Process process;
  private final Path out;
  private final Path err;

  private ServeProcess(ProcessBuilder command) throws IOException {
    out = Files.createTempFile("nbd-serve-", ".out");
    err = Files.createTempFile("nbd-serve-", ".err");
    process = command.redirectOutput(out.toFile()).redirectError(err.toFile()).start();
  }

  /** The command that starts it, for tests that change it. */
  static ProcessBuilder builder(String... arguments) {
    return builder("serve", List.of(arguments));
  }

  private static ProcessBuilder builder(String subcommand, List<String> arguments) {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    // What starts quickly: these processes are short.
    command.addAll(List.of("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"));
    command.addAll(List.of("-jar", System.getProperty("nbd.jar"), subcommand));
    command.addAll(arguments);
    return new ProcessBuilder(command);
  }

  /** Starts it, and waits until it is ready. */
  static ServeProcess ready(String... arguments) throws IOException, InterruptedException {
    return ready(builder(arguments));
  }

  /** As {@link #ready(String...)}, with a command that may have been changed. */
  static ServeProcess ready(ProcessBuilder command) throws IOException, InterruptedException {
    ServeProcess serve = new ServeProcess(command);
    Eventually.isTrue("it is ready or has ended", () -> !serve.isStarting());
    assertThat(serve.process.isAlive()).as("it runs: %s", serve.err()).isTrue();
    return serve;
  }

  /** Starts it with {@code --run}: what is said on standard output is the command's. */
  static ServeProcess withCommand(String... arguments) throws IOException {
    return withCommand(builder(arguments));
  }

  /** As {@link #withCommand(String...)}, with a command that may have been changed. */
  static ServeProcess withCommand(ProcessBuilder command) throws IOException {
    return new ServeProcess(command);
  }

  /** Runs it to its end. */
  static Tools.Result run(String... arguments) throws IOException, InterruptedException {
    return run(builder(arguments));
  }

  /** As {@link #run(String...)}, with a command that may have been changed. */
  static Tools.Result run(ProcessBuilder command) throws IOException, InterruptedException {
    try (ServeProcess serve = new ServeProcess(command)) {
      int status = serve.awaitEnd();
      return new Tools.Result(status, serve.out(), serve.err());
    }
  }

  /** Runs another of the program's commands to its end. */
  static Tools.Result command(String subcommand, String... arguments)
      throws IOException, InterruptedException {
    try (ServeProcess process = new ServeProcess(builder(subcommand, List.of(arguments)))) {
      int status = process.awaitEnd();
      return new Tools.Result(status, process.out(), process.err());
    }
  }

  private boolean isStarting() {
    try {
      return process.isAlive() && !out().endsWith("\n");
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  /** By the ready line. */
  String uri() throws IOException {
    assertThat(out()).startsWith(READY);
    return out().substring(READY.length()).strip();
  }

  /** The URI of another export here. */
  String uri(String export) throws IOException {
    String uri = uri();
    int query = uri.indexOf('?');
    String path = query < 0 ? uri : uri.substring(0, query);
    String rest = query < 0 ? "" : uri.substring(query);
    return path.substring(0, path.lastIndexOf('/') + 1) + export + rest;
  }

  /** Where a client of the tests' own connects. */
  SocketAddress address() throws IOException {
    URI uri = URI.create(uri());
    return uri.getHost() == null
        ? UnixDomainSocketAddress.of(uri.getQuery().substring("socket=".length()))
        : new InetSocketAddress(uri.getHost(), uri.getPort());
  }

  long pid() {
    return process.pid();
  }

  String out() throws IOException {
    return new String(Files.readAllBytes(out), UTF_8);
  }

  /** Its log, without the line that says that a signal stops it. */
  String err() throws IOException {
    return log().replaceAll("(?m)^.* INFO  stopping on a signal.*\\R", "");
  }

  /** Its log. */
  String log() throws IOException {
    return new String(Files.readAllBytes(err), UTF_8);
  }

  /** Whether its log has these words by now. */
  boolean said(String words) {
    return errByNow().contains(words);
  }

  /**
   * Waits until its log has so many lines: a client ends before the server has found out what was
   * wrong with it.
   */
  void awaitLines(long count) throws InterruptedException {
    Eventually.isTrue(count + " lines are logged", () -> errByNow().lines().count() >= count);
  }

  /** As {@link #err}, for lambdas. */
  private String errByNow() {
    try {
      return err();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  /** Sends a signal: TERM, INT. */
  void signal(String name) throws IOException, InterruptedException {
    Tools.run("kill", "-" + name, "" + pid()).ok();
  }

  /** Waits for the end, and gives the status. */
  int awaitEnd() throws IOException, InterruptedException {
    if (!process.waitFor(HANG_SECONDS, TimeUnit.SECONDS)) {
      fail("serve does not end: " + err());
    }
    return process.exitValue();
  }

  /** Ends it by SIGTERM: it has to succeed, and to have said nothing but that it was ready. */
  void stop() throws IOException, InterruptedException {
    process.destroy();
    assertThat(awaitEnd()).as("the status; it said %s", err()).isZero();
    assertThat(out()).startsWith(READY).endsWith("\n").hasLineCount(1);
  }

  /** As {@link #stop}, with nothing logged. */
  void stopQuietly() throws IOException, InterruptedException {
    stop();
    assertThat(err()).isEmpty();
  }

  @Override
  public void close() throws IOException {
    process.destroyForcibly();
    Files.deleteIfExists(out);
    Files.deleteIfExists(err);
  }
}
