package nbd.interop;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.UnixDomainSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import nbd.testing.Eventually;
import nbd.testing.Missing;
import nbd.testing.RawClient;
import nbd.testing.TestCertificates;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The server as others start it and look after it: systemd, libnbd, inetd, another program. */
@Timeout(300)
final class ServiceIT {
  /** A service manager's end of NOTIFY_SOCKET, which prints a line for each message. */
  private static final String MANAGER =
      """
      import socket, sys
      s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
      s.bind(sys.argv[1].replace("@", "\\0", 1))
      print("bound", flush=True)
      while True: print(s.recv(4096).decode().replace("\\n", " "), flush=True)
      """;

  private final List<Process> started = new ArrayList<>();

  @TempDir private Path directory;
  private Path out;
  private String socket;

  @BeforeEach
  void create() {
    out = directory.resolve("out");
    socket = directory.resolve("socket").toString();
  }

  @AfterEach
  void end() {
    started.forEach(Process::destroyForcibly);
  }

  /** The Java that the server runs on, and one from which the launcher starts it. */
  static Stream<Path> javas() {
    Path own = Path.of(System.getProperty("java.home"));
    return Stream.of(own, Path.of(System.getProperty("nbd.maven.java.home", own.toString())))
        .distinct()
        .map(home -> home.resolve("bin/java"));
  }

  private static List<String> serve(Path java, String... arguments) {
    List<String> command = new ArrayList<>(List.of(java.toString(), "-XX:TieredStopAtLevel=1"));
    command.addAll(List.of("-jar", System.getProperty("nbd.jar"), "serve"));
    command.addAll(List.of(arguments));
    return command;
  }

  private static String[] words(List<String> before, List<String> command, String... after) {
    return Stream.of(before, command, List.of(after)).flatMap(List::stream).toArray(String[]::new);
  }

  /** Makes a command of the shell, which runs the command that follows it as "$@". */
  private static ProcessBuilder shell(String script, List<String> command) {
    ProcessBuilder builder =
        new ProcessBuilder(words(List.of("/bin/sh", "-c", script, "sh"), command));
    builder.environment().put("JAVA_HOME", System.getProperty("java.home"));
    builder.environment().put("PATH", Missing.path());
    return builder;
  }

  private Process start(ProcessBuilder builder) throws IOException {
    Process process = builder.start();
    started.add(process);
    return process;
  }

  private static String text(Path file) {
    try {
      return Files.exists(file) ? Files.readString(file, UTF_8) : "";
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  private static void awaitText(Path file, String text) throws InterruptedException {
    Eventually.isTrue(text + " is said", () -> text(file).contains(text));
  }

  @Test
  void everySocketIsListenedOnAndAnnouncedInOrder() throws Exception {
    String other = directory.resolve("other").toString();
    try (ServeProcess serve =
        ServeProcess.ready(
            "-i", "127.0.0.1", "-i", "::1", "-p", "0", "-U", socket, "-U", other, "memory:1M")) {
      Eventually.isTrue("all are announced", () -> lines(serve) == 4);
      assertThat(serve.out())
          .matches(
              """
              nbd-multiconn: ready nbd://127\\.0\\.0\\.1:\\d+/
              nbd-multiconn: ready nbd://\\[0:0:0:0:0:0:0:1\\]:\\d+/
              nbd-multiconn: ready nbd\\+unix:///\\?socket=\\S*/socket
              nbd-multiconn: ready nbd\\+unix:///\\?socket=\\S*/other
              """);
      Tools.need("nbdinfo");
      for (String line : serve.out().lines().toList()) {
        String uri = line.substring(line.lastIndexOf(' ') + 1);
        assertThat(Tools.run("nbdinfo", "--size", uri).ok().out()).isEqualTo("1048576\n");
      }
      serve.signal("TERM");
      assertThat(serve.awaitEnd()).isZero();
      assertThat(serve.err()).isEmpty();
    }
    assertThat(directory).isEmptyDirectory();
  }

  private static long lines(ServeProcess serve) {
    try {
      return serve.out().lines().count();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  @Test
  void ifOneSocketCannotBeMadeNoneIsLeft() throws Exception {
    assertThat(
            ServeProcess.refusal("-p", "0", "-U", socket, "-U", directory + "/no/x", "memory:1M"))
        .contains("/no/x");
    assertThat(directory).isEmptyDirectory();
  }

  @Test
  void theCommandThatRunsGetsTheFirstSockets() throws Exception {
    Tools.Result result =
        ServeProcess.run(
            "--run=echo $uri $unixsocket",
            "-p",
            "0",
            "-U",
            socket,
            "-U",
            socket + "2",
            "memory:1M");
    assertThat(result.out()).matches("nbd://127.0.0.1:\\d+/ " + socket + "\n");
  }

  @ParameterizedTest
  @MethodSource("javas")
  void libnbdStartsItWithASocket(Path java) throws Exception {
    Tools.need("nbdinfo");
    List<String> before = List.of("nbdinfo", "--size", "--", "[");
    assertThat(Tools.run(words(before, serve(java, "memory:3M"), "]")).ok().out())
        .isEqualTo("3145728\n");
  }

  @ParameterizedTest
  @MethodSource("javas")
  void systemdsSocketsAreServed(Path java) throws Exception {
    Tools.need("systemd-socket-activate", "nbdinfo");
    ProcessBuilder builder =
        shell(
            "exec systemd-socket-activate -E JAVA_HOME -E PATH -l \"$socket\" -l \"$socket.2\""
                + " -l \"$socket.3\" --fdname=one:two:disk.socket \"$@\"",
            serve(java, "-v", "--export=one=memory:1M", "--export=two=memory:2M", "memory:3M"));
    builder.environment().put("socket", socket);
    Process server = start(builder.redirectOutput(out.toFile()).redirectError(log().toFile()));
    // It logs that after it listens; the file is there before.
    awaitText(log(), "Listening on " + socket + ".3");
    int size = 0;
    for (String path : List.of(socket, socket + ".2", socket + ".3")) {
      String uri = "nbd+unix:///?socket=" + path;
      size += 1 << 20;
      assertThat(Tools.run("nbdinfo", "--size", uri).ok().out()).isEqualTo(size + "\n");
    }
    assertThat(listed(socket)).containsExactly("one");
    assertThat(listed(socket + ".2")).containsExactly("two");
    assertThat(listed(socket + ".3")).containsExactlyInAnyOrder("", "one", "two");
    assertThat(Tools.run("nbdinfo", "nbd+unix:///one?socket=" + socket + ".2").status())
        .isEqualTo(1);
    server.destroy();
    assertThat(server.waitFor(2, TimeUnit.MINUTES)).isTrue();
    assertThat(server.exitValue()).as(text(log())).isZero();
    assertThat(Path.of(socket)).as("systemd's socket").exists();
    assertThat(text(log()))
        .contains(
            "\"one\" is served at nbd+unix:///one?socket=" + socket + ", socket \"one\"\n",
            "nbd+unix:///?socket=" + socket + ".3, socket \"disk.socket\"\n")
        .doesNotContain("WARN  socket");
    assertThat(out).isEmptyFile();
  }

  /** Lists the exports that nbdinfo finds on a Unix socket. */
  private static List<String> listed(String path) throws Exception {
    String json = Tools.run("nbdinfo", "--json", "--list", "nbd+unix://?socket=" + path).ok().out();
    return Pattern.compile("\"export-name\": \"(.*)\"")
        .matcher(json)
        .results()
        .map(each -> each.group(1))
        .toList();
  }

  private Path log() {
    return directory.resolve("log");
  }

  @Test
  void socketsWhoseExportsAreMissingAreNamedInTheLog() throws Exception {
    Path control = directory.resolve("control");
    String odd = "a\n\u202eb\u001b[31m";
    Process server =
        activated(
            "disk:" + odd + ":connection:missing",
            "--control=" + control,
            "--export=disk=memory:1M");
    try (RawClient client = RawClient.connect(UnixDomainSocketAddress.of(socket + 0))) {
      assertThat(client.enter("").size()).isEqualTo(1 << 20);
      client.disconnect();
    }
    awaitText(log(), "\"missing\"");
    assertThat(text(log()))
        .hasLineCount(2)
        .contains(
            "WARN  socket 2 of the service manager, \"a??b?[31m\": there is no export of this name",
            "WARN  socket 4 of the service manager, \"missing\": there is no export of this name");
    try (RawClient client = RawClient.connect(UnixDomainSocketAddress.of(socket + 3)).hello(3)) {
      client.option(RawClient.GO, RawClient.infoData(""));
      client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN);
      ServeProcess.command("control", control.toString(), "add", "missing=memory:2M");
      assertThat(client.go("").size()).isEqualTo(2 << 20);
      client.disconnect();
    }
    server.destroy();
    assertThat(server.waitFor(2, TimeUnit.MINUTES)).isTrue();
    assertThat(server.exitValue()).as(text(log())).isZero();
  }

  @ParameterizedTest
  @ValueSource(strings = {"dir", "dynamic"})
  void storageThatNamesItsExportsMayHaveAny(String kind) throws Exception {
    Files.write(Files.createDirectory(directory.resolve("images")).resolve("disk"), new byte[512]);
    try (ServeProcess upstream = ServeProcess.on(directory, "dir:" + directory + "/images")) {
      List<String> backend =
          kind.equals("dir")
              ? List.of("dir:" + directory + "/images")
              : List.of("--dynamic-export", upstream.uri());
      Process server = activated("disk:late", backend.toArray(String[]::new));
      try (RawClient client = RawClient.connect(UnixDomainSocketAddress.of(socket + 0));
          RawClient late = RawClient.connect(UnixDomainSocketAddress.of(socket + 1)).hello(3)) {
        assertThat(client.enter("").size()).isEqualTo(512);
        client.disconnect();
        late.option(RawClient.GO, RawClient.infoData(""));
        late.expectError(RawClient.GO, RawClient.ERR_UNKNOWN);
        Files.write(directory.resolve("images/late"), new byte[1024]);
        assertThat(late.go("").size()).isEqualTo(1024);
        late.disconnect();
      }
      server.destroy();
      assertThat(server.waitFor(2, TimeUnit.MINUTES)).isTrue();
      assertThat(text(log())).doesNotContain("WARN  socket");
    }
  }

  /** Starts the server with sockets of these names; their paths have numbers at the end. */
  private Process activated(String names, String... arguments) throws Exception {
    List<String> command = new ArrayList<>(List.of("python3", "-c", Tools.ACTIVATE, names, socket));
    command.addAll(serve(javas().toList().getFirst(), arguments));
    ProcessBuilder builder = new ProcessBuilder(command);
    Process server = start(builder.redirectOutput(out.toFile()).redirectError(log().toFile()));
    Tools.awaitListening(UnixDomainSocketAddress.of(socket + (names.split(":").length - 1)));
    return server;
  }

  private String refusal(int status, String script, String... arguments) throws Exception {
    ProcessBuilder builder = shell(script, serve(javas().toList().getFirst(), arguments));
    Process process = start(builder.redirectOutput(out.toFile()).redirectError(log().toFile()));
    assertThat(process.waitFor(2, TimeUnit.MINUTES)).isTrue();
    assertThat(text(out)).isEmpty();
    assertThat(text(log())).hasLineCount(1).startsWith("nbd-multiconn: ");
    assertThat(process.exitValue()).as(text(log())).isEqualTo(status);
    return text(log());
  }

  @Test
  void whatIsNoListeningSocketIsRefused() throws Exception {
    String passed = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\"";
    assertThat(refusal(1, passed + " 3</dev/null", "memory:1M"))
        .contains("socket 1 of 1", "descriptor 3 is not a socket");
    assertThat(refusal(2, passed, "-U", socket, "memory:1M")).contains("--unix", "LISTEN_FDS");
    assertThat(refusal(2, passed, "--single", "memory:1M")).contains("--single", "LISTEN_FDS");
    String names = "export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=one; exec \"$@\"";
    assertThat(refusal(2, names, "memory:1M")).contains("LISTEN_FDNAMES", "1 names for 2");
    String many = "export LISTEN_PID=$$ LISTEN_FDS=many; exec \"$@\"";
    assertThat(refusal(2, many, "memory:1M")).contains("LISTEN_FDS", "\"many\"");
  }

  @Test
  void variablesForAnotherProcessAreIgnoredAndNotPassedOn() throws Exception {
    ProcessBuilder builder = ServeProcess.builder("--run=env", "memory:1M");
    builder.environment().put("LISTEN_PID", "1");
    builder.environment().put("LISTEN_FDS", "1");
    builder.environment().put("WATCHDOG_USEC", "1");
    builder.environment().put("NOTIFY_SOCKET", directory.resolve("nobody").toString());
    Tools.Result result = ServeProcess.run(builder);
    assertThat(result.status()).as(result.err()).isZero();
    assertThat(result.out()).contains("unixsocket=");
    assertThat(result.out()).doesNotContain("LISTEN_", "WATCHDOG_", "NOTIFY_SOCKET");
    assertThat(result.err()).as("nobody hears").hasLineCount(1).contains("NOTIFY_SOCKET", "ENOENT");
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "@"})
  void theServiceManagerHearsOfTheState(String kind) throws Exception {
    String address = kind + directory.resolve("manager");
    started.add(Tools.start(out, "python3", "-c", MANAGER, address));
    awaitText(out, "bound\n");
    ProcessBuilder builder =
        ServeProcess.builder(
            "-p", "0", "--tls-certificates", TestCertificates.GOOD.toString(), "memory:1M");
    builder.environment().put("NOTIFY_SOCKET", address);
    builder.environment().put("WATCHDOG_USEC", "100000");
    try (ServeProcess serve = ServeProcess.ready(builder)) {
      awaitText(out, "READY=1\n");
      awaitText(out, "STATUS=clients: 0 now, 0 since the start");
      awaitText(out, "WATCHDOG=1\n");
      try (RawClient client = serve.client()) {
        awaitText(out, "STATUS=clients: 1 now, 1 since the start");
        client.disconnect();
      }
      awaitText(out, "STATUS=clients: 0 now, 1 since the start");
      serve.signal("HUP");
      Eventually.isTrue("it has reloaded", () -> text(out).split("READY=1\n", -1).length == 3);
      serve.stop();
    }
    awaitText(out, "STOPPING=1 STATUS=stopping\n");
    assertThat(text(out).replaceAll("(?m)^(STATUS|WATCHDOG)=.*\\R", ""))
        .matches(
            "bound\nREADY=1\nRELOADING=1 MONOTONIC_USEC=\\d+\nREADY=1\nSTOPPING=1"
                + " STATUS=stopping\n");
  }

  @ParameterizedTest
  @MethodSource("javas")
  void libnbdTalksToItOverItsStandardStreams(Path java) throws Exception {
    Tools.need("nbdsh");
    List<String> quoted =
        serve(java, "-s", "-v", "memory:1M").stream().map(word -> '"' + word + '"').toList();
    String script =
        """
        h.connect_command([%s])
        h.pwrite(b"x" * 300000, 0)
        h.flush()
        print(h.pread(3, 299998), h.get_size(), h.can_multi_conn())
        h.shutdown()
        """
            .formatted(String.join(", ", quoted));
    assertThat(Tools.run("nbdsh", "-c", script).ok().out())
        .isEqualTo("bytearray(b'xx\\x00') 1048576 False\n");
  }

  @ParameterizedTest
  @MethodSource("javas")
  void nothingIsLoggedToASocketThatIsAllStreams(Path java) throws Exception {
    Tools.need("nbdsh");
    List<String> quoted =
        serve(java, "-s", "-v", "memory:1M").stream().map(word -> '"' + word + '"').toList();
    String script =
        """
        import socket, subprocess
        ours, theirs = socket.socketpair()
        server = subprocess.Popen([%s], stdin=theirs, stdout=theirs, stderr=theirs)
        theirs.close()
        h.connect_socket(ours.detach())
        h.pwrite(b"x" * 300000, 0)
        print(h.pread(3, 299998))
        h.shutdown()
        print(server.wait())
        """
            .formatted(String.join(", ", quoted));
    assertThat(Tools.run("nbdsh", "-c", script).ok().out()).isEqualTo("bytearray(b'xx\\x00')\n0\n");
  }

  @ParameterizedTest
  @MethodSource("javas")
  void aClientIsServedOverPipes(Path java) throws Exception {
    ProcessBuilder builder =
        new ProcessBuilder(serve(java, "-s", "memory:1M")).redirectError(log().toFile());
    builder.environment().put("JAVA_HOME", System.getProperty("java.home"));
    Process server = start(builder);
    try (DataInputStream in = new DataInputStream(server.getInputStream());
        DataOutputStream to = new DataOutputStream(server.getOutputStream())) {
      assertThat(new String(in.readNBytes(16), ISO_8859_1)).isEqualTo("NBDMAGICIHAVEOPT");
      assertThat(in.readUnsignedShort() & 3).isEqualTo(3);
      to.writeInt(3);
      to.writeBytes("IHAVEOPT");
      to.writeInt(RawClient.ABORT);
      to.writeInt(0);
      to.flush();
      assertThat(in.readLong()).isEqualTo(0x3e889045565a9L);
      assertThat(in.readInt()).isEqualTo(RawClient.ABORT);
      assertThat(in.readInt()).as("NBD_REP_ACK").isEqualTo(1);
      assertThat(in.readInt()).isZero();
      assertThat(in.read()).as("the end").isEqualTo(-1);
    }
    assertThat(server.waitFor(2, TimeUnit.MINUTES)).isTrue();
    assertThat(server.exitValue()).isZero();
    assertThat(log()).isEmptyFile();
  }

  @Test
  void aSignalEndsTheServerOfPipes() throws Exception {
    Process server =
        start(
            new ProcessBuilder(serve(javas().toList().getFirst(), "-s", "memory:1M"))
                .redirectError(log().toFile()));
    try (DataInputStream in = new DataInputStream(server.getInputStream())) {
      assertThat(new String(in.readNBytes(16), ISO_8859_1)).isEqualTo("NBDMAGICIHAVEOPT");
      // Process.destroy() would close the pipe, too.
      Tools.run("kill", "-TERM", "" + server.pid()).ok();
      assertThat(server.waitFor(2, TimeUnit.MINUTES)).isTrue();
      assertThat(in.readAllBytes()).as("the flags").hasSize(2);
    }
    assertThat(server.exitValue()).as(text(log())).isZero();
    assertThat(text(log())).hasLineCount(1).contains("stopping on a signal, connections: 1");
  }

  @Test
  void aClientThatClosesItsPipesEndsTheServer() throws Exception {
    Process server =
        start(
            new ProcessBuilder(serve(javas().toList().getFirst(), "-s", "memory:1M"))
                .redirectError(log().toFile()));
    server.getOutputStream().close();
    assertThat(server.waitFor(2, TimeUnit.MINUTES)).isTrue();
    assertThat(server.exitValue()).as(text(log())).isZero();
  }

  @Test
  void theServerEndsWithItsLastClient() throws Exception {
    try (ServeProcess serve = ServeProcess.ready("-U", socket, "--exit-last", "memory:1M")) {
      try (RawClient none = RawClient.connect(serve.address())) {
        none.hello(3).option(RawClient.ABORT).expectAck(RawClient.ABORT).expectEnd();
      }
      try (RawClient first = serve.client();
          RawClient second = serve.client()) {
        first.disconnect();
        second.write(0, (byte) 1).flush().disconnect();
      }
      assertThat(serve.awaitEnd()).isZero();
      assertThat(serve.log()).hasLineCount(1).contains("the last client has left");
    }
    assertThat(Path.of(socket)).doesNotExist();
  }

  @ParameterizedTest
  @MethodSource("javas")
  void theServerEndsInOrderWithItsParent(Path java) throws Exception {
    Process parent =
        start(
            shell("\"$@\" & wait", serve(java, "--exit-with-parent", "-U", socket, "memory:1M"))
                .redirectOutput(out.toFile())
                .redirectError(log().toFile()));
    awaitText(out, "ready");
    parent.destroyForcibly();
    Eventually.isTrue("its socket is removed", () -> !Files.exists(Path.of(socket)));
    awaitText(log(), "the parent process has ended");
  }
}
