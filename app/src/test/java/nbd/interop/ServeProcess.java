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
import nbd.testing.RawClient;

/** The command {@code serve} in a process of its own, from the jar. */
final class ServeProcess implements AutoCloseable {
  private static final String READY = "nbd-multiconn: ready ";
  private static final long HANG_SECONDS = 120;

  private final Process process;
  private final Path out;
  private final Path err;

  private ServeProcess(ProcessBuilder command) throws IOException {
    out = Files.createTempFile("nbd-serve-", ".out");
    err = Files.createTempFile("nbd-serve-", ".err");
    // A test that fails before it has this object does not close it.
    out.toFile().deleteOnExit();
    err.toFile().deleteOnExit();
    process = command.redirectOutput(out.toFile()).redirectError(err.toFile()).start();
  }

  /** Makes the command that starts it, for tests that change it. */
  static ProcessBuilder builder(String... arguments) {
    return builder("serve", List.of(arguments));
  }

  private static ProcessBuilder builder(String subcommand, List<String> arguments) {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    // Quick to start, since these processes are short.
    command.addAll(List.of("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"));
    command.addAll(List.of("-jar", System.getProperty("nbd.jar"), subcommand));
    command.addAll(arguments);
    return new ProcessBuilder(command);
  }

  /** Starts it, and waits until it is ready. */
  static ServeProcess ready(String... arguments) throws IOException, InterruptedException {
    return ready(builder(arguments));
  }

  /** Starts it as {@link #ready(String...)} does, by a command that may have been changed. */
  static ServeProcess ready(ProcessBuilder command) throws IOException, InterruptedException {
    ServeProcess serve = new ServeProcess(command);
    Eventually.isTrue("it is ready or has ended", () -> !serve.isStarting());
    assertThat(serve.process.isAlive()).as("it runs: %s", serve.err()).isTrue();
    return serve;
  }

  /** Starts it on a Unix socket in a directory, and waits until it is ready. */
  static ServeProcess on(Path directory, String backend, String... options)
      throws IOException, InterruptedException {
    List<String> arguments = new ArrayList<>(List.of("-U", directory.resolve("socket").toString()));
    arguments.addAll(List.of(options));
    arguments.add(backend);
    return ready(arguments.toArray(String[]::new));
  }

  /** Starts it with {@code --run}, whose command has standard output. */
  static ServeProcess withCommand(String... arguments) throws IOException {
    return withCommand(builder(arguments));
  }

  /** Starts it as {@link #withCommand(String...)} does, by a command that may have been changed. */
  static ServeProcess withCommand(ProcessBuilder command) throws IOException {
    return new ServeProcess(command);
  }

  /** Runs it to its end. */
  static Tools.Result run(String... arguments) throws IOException, InterruptedException {
    return run(builder(arguments));
  }

  /** Runs it as {@link #run(String...)} does, by a command that may have been changed. */
  static Tools.Result run(ProcessBuilder command) throws IOException, InterruptedException {
    try (ServeProcess serve = new ServeProcess(command)) {
      int status = serve.awaitEnd();
      return new Tools.Result(status, serve.out(), serve.err());
    }
  }

  /** Runs it, and returns the line with which it refuses to start, with status 1. */
  static String refusal(String... arguments) throws IOException, InterruptedException {
    return refusal(builder(arguments));
  }

  /** Runs it as {@link #refusal(String...)} does, by a command that may have been changed. */
  static String refusal(ProcessBuilder command) throws IOException, InterruptedException {
    Tools.Result result = run(command);
    assertThat(result.status()).as(result.err()).isEqualTo(1);
    assertThat(result.out()).isEmpty();
    assertThat(result.err()).hasLineCount(1).startsWith("nbd-multiconn: ");
    return result.err();
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

  /** Reads the URI from the ready line. */
  String uri() throws IOException {
    assertThat(out()).startsWith(READY);
    return out().substring(READY.length()).strip();
  }

  /** Makes the URI of another export. */
  String uri(String export) throws IOException {
    String uri = uri();
    int query = uri.indexOf('?');
    String path = query < 0 ? uri : uri.substring(0, query);
    String rest = query < 0 ? "" : uri.substring(query);
    return path.substring(0, path.lastIndexOf('/') + 1) + export + rest;
  }

  /** Returns the address, for a client of the tests' own. */
  SocketAddress address() throws IOException {
    URI uri = URI.create(uri());
    return uri.getHost() == null
        ? UnixDomainSocketAddress.of(uri.getQuery().substring("socket=".length()))
        : new InetSocketAddress(uri.getHost(), uri.getPort());
  }

  /** Connects a client to the export without a name. */
  RawClient client() throws IOException {
    return client("");
  }

  /** Connects a client to an export. */
  RawClient client(String export) throws IOException {
    RawClient client = RawClient.connect(address());
    client.enter(export);
    return client;
  }

  long pid() {
    return process.pid();
  }

  String out() throws IOException {
    return new String(Files.readAllBytes(out), UTF_8);
  }

  /** Reads its log, without the line on the signal that stops it. */
  String err() throws IOException {
    return log().replaceAll("(?m)^.* INFO  stopping on a signal.*\\R", "");
  }

  /** Reads its log. */
  String log() throws IOException {
    return new String(Files.readAllBytes(err), UTF_8);
  }

  /** Says whether its log has these words by now. */
  boolean said(String words) {
    return errByNow().contains(words);
  }

  /** Waits until its log has so many lines: a client may end before the server logs the reason. */
  void awaitLines(long count) throws InterruptedException {
    Eventually.isTrue(count + " lines are logged", () -> errByNow().lines().count() >= count);
  }

  /** Reads its log as {@link #err} does, for lambdas. */
  private String errByNow() {
    try {
      return err();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  /** Sends a signal, such as TERM. */
  void signal(String name) throws IOException, InterruptedException {
    Tools.run("kill", "-" + name, "" + pid()).ok();
  }

  /** Waits for the end, and returns the status. */
  int awaitEnd() throws IOException, InterruptedException {
    if (!process.waitFor(HANG_SECONDS, TimeUnit.SECONDS)) {
      fail("serve does not end: " + err());
    }
    return process.exitValue();
  }

  /** Ends it by SIGTERM, with success and no output but the ready line. */
  void stop() throws IOException, InterruptedException {
    process.destroy();
    assertThat(awaitEnd()).as("the status; it said %s", err()).isZero();
    assertThat(out()).startsWith(READY).endsWith("\n").hasLineCount(1);
  }

  /** Ends it as {@link #stop} does, with an empty log. */
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
