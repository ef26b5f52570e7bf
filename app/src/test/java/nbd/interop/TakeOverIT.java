package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import nbd.testing.Eventually;
import nbd.testing.FreePort;
import nbd.testing.Missing;
import nbd.testing.RawClient;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/**
 * Servers that take over from each other while clients work. {@code -Dnbd.takeovers=100} makes more
 * of them.
 */
@Timeout(1800)
final class TakeOverIT {
  private static final int TAKEOVERS = Integer.getInteger("nbd.takeovers", 3);
  private static final long SIZE = 64 << 20;
  private static final int BLOCK = 4096;

  @TempDir private Path directory;
  private Path image;
  private Path unix;
  private Path control;
  private ServeProcess serving;
  private volatile boolean enough;

  @BeforeEach
  void create() throws IOException {
    image = directory.resolve("disk.img");
    unix = directory.resolve("socket");
    control = directory.resolve("control");
    try (var file =
        Files.newByteChannel(image, StandardOpenOption.CREATE, StandardOpenOption.WRITE)) {
      file.position(SIZE - 1).write(ByteBuffer.allocate(1));
    }
  }

  @AfterEach
  void stop() throws Exception {
    enough = true;
    if (serving != null) {
      serving.close();
    }
  }

  private String[] arguments(String backend, String... options) {
    List<String> all =
        new ArrayList<>(
            List.of("--control=" + control, "--take-over-timeout=2m", "-U", unix.toString()));
    all.addAll(List.of(options));
    all.add(backend);
    return all.toArray(String[]::new);
  }

  private static String[] with(String option, String... arguments) {
    List<String> all = new ArrayList<>(List.of(option));
    all.addAll(List.of(arguments));
    return all.toArray(String[]::new);
  }

  /** Starts a server that takes over, and waits for the end of the one before. */
  private void takeOver(String... arguments) throws Exception {
    ServeProcess next = ServeProcess.ready(with("--take-over", arguments));
    ServeProcess before = serving;
    serving = next;
    assertThat(before.awaitEnd()).as("status of the server before: %s", before.err()).isZero();
    before.close();
  }

  /** One request after the other, in blocks of its own; returns the longest time of one, in ns. */
  private final class Session implements Callable<Long> {
    private final SocketAddress address;
    private final String name;

    Session(SocketAddress address, String name) {
      this.address = address;
      this.name = name;
    }

    @Override
    public Long call() throws Exception {
      long longest = 0;
      try (RawClient client = RawClient.connect(address)) {
        client.enter(name);
        byte[] data = new byte[BLOCK];
        for (int i = 0; !enough; i++) {
          Arrays.fill(data, (byte) i);
          long at = SIZE - BLOCK * (1L + i % 256);
          long begun = System.nanoTime();
          client.write(at, data);
          assertThat(client.read(at, BLOCK)).isEqualTo(data);
          if (i % 50 == 0) {
            client.flush();
          }
          longest = Math.max(longest, System.nanoTime() - begun);
        }
        client.flush();
        client.disconnect();
      }
      return longest;
    }
  }

  private static <T> FutureTask<T> start(Callable<T> task) {
    FutureTask<T> running = new FutureTask<>(task);
    Thread.ofPlatform().name("beside").start(running);
    return running;
  }

  /** Waits until somebody serves as many clients. */
  private void awaitClients(int count) throws Exception {
    long end = System.nanoTime() + TimeUnit.MINUTES.toNanos(2);
    while (ServeProcess.command("control", control.toString(), "connections")
            .out()
            .lines()
            .filter(line -> line.contains("serving"))
            .count()
        < count) {
      assertThat(System.nanoTime()).as("%d clients are served", count).isLessThan(end);
    }
  }

  @Test
  void clientsNoticeNothing() throws Exception {
    Missing.unlessInstalled("fio", "qemu-io");
    String[] arguments = arguments("file:" + image, "-p", "0");
    serving = ServeProcess.ready(arguments);
    String tcp = serving.out().lines().findFirst().orElseThrow().replaceFirst(".*ready ", "");
    worksWhile(tcp, () -> takeOver(arguments));
  }

  @Test
  void clientsNoticeNoRestartByTheServiceManager() throws Exception {
    Missing.unlessInstalled("fio", "qemu-io", "python3");
    int port = FreePort.find();
    String[] arguments = arguments("file:" + image, "-p", String.valueOf(port));
    try (StoringManager manager = new StoringManager(directory, 100, 100, log(), arguments)) {
      // Five clients, a TCP socket, the image's lock, and the messages.
      worksWhile("nbd://127.0.0.1:" + port + "/", () -> manager.restart(8, arguments));
      manager.stop(3);
      assertThat(Files.readString(log())).doesNotContain("ERROR", "WARN");
    }
    assertThat(unix).doesNotExist();
    assertThat(control).doesNotExist();
  }

  private Path log() {
    return directory.resolve("log");
  }

  /** Starts a server by a service manager with a store for files. */
  private StoringManager manager(int size, int told, String... options) throws Exception {
    Missing.unlessInstalled("python3");
    return new StoringManager(directory, size, told, log(), arguments("file:" + image, options));
  }

  /** Something that happens to the server while clients work. */
  @FunctionalInterface
  private interface Event {
    void happen() throws Exception;
  }

  private void worksWhile(String tcp, Event event) throws Exception {
    List<Process> load = new ArrayList<>();
    List<Path> said = new ArrayList<>();
    int part = 0;
    for (String uri : List.of(tcp, "nbd+unix:///?socket=" + unix)) {
      Path out = directory.resolve("fio" + part);
      load.add(
          Tools.start(
              out,
              Tools.fio(
                  uri,
                  "--rw=randrw",
                  "--bsrange=4k-128k",
                  "--numjobs=2",
                  "--offset=" + part * 24 + "m",
                  "--offset_increment=12m",
                  "--size=12m",
                  "--iodepth=8",
                  "--verify_backlog=64",
                  "--time_based",
                  "--runtime=100000")));
      said.add(out);
      part++;
    }
    FutureTask<Long> session = start(new Session(UnixDomainSocketAddress.of(unix), ""));
    awaitClients(5);
    FutureTask<Integer> intruder = start(this::writeTheImageOtherwise);
    for (int i = 0; i < TAKEOVERS; i++) {
      event.happen();
      awaitClients(5);
    }
    enough = true;
    assertThat(intruder.get(2, TimeUnit.MINUTES)).as("tries to open the image").isPositive();
    System.out.printf(
        "TakeOverIT: %d take-overs, longest time of three requests %d ms%n",
        TAKEOVERS, TimeUnit.NANOSECONDS.toMillis(session.get(2, TimeUnit.MINUTES)));
    for (int i = 0; i < load.size(); i++) {
      assertThat(load.get(i).isAlive()).as("%s", Files.readString(said.get(i))).isTrue();
      // fio ends its jobs, with what they have seen so far.
      load.get(i).destroy();
      Tools.Result result = Tools.result(load.get(i), said.get(i));
      assertThat(result.out() + result.err())
          .contains("err= 0")
          .doesNotContain("verify:")
          .doesNotContainIgnoringCase("error");
    }
  }

  /** Tries to write the image past its lock, which somebody holds at any time. */
  private int writeTheImageOtherwise() throws Exception {
    int tries = 0;
    do {
      Tools.Result result = Tools.run("qemu-io", "-f", "raw", "-c", "quit", image.toString());
      assertThat(result.err()).contains("lock");
      tries++;
    } while (!enough);
    return tries;
  }

  @Test
  void filtersAndUpstreamsAreHandedOverFlushed() throws Exception {
    Missing.unlessInstalled("nbdkit");
    Path upstream = directory.resolve("upstream");
    Process nbdkit =
        Tools.start(
            directory.resolve("nbdkit"),
            "nbdkit",
            "-f",
            "-U",
            upstream.toString(),
            "memory",
            String.valueOf(SIZE));
    try {
      Eventually.isTrue("nbdkit listens", () -> Files.exists(upstream));
      String[] arguments =
          arguments(
              "nbd+unix:///?socket=" + upstream,
              "--cache=writeback",
              "--multi-conn-mode=emulate",
              "--export=file={file:" + image + " --cache=writeback}");
      serving = ServeProcess.ready(arguments);
      SocketAddress address = UnixDomainSocketAddress.of(unix);
      FutureTask<Long> first = start(new Session(address, ""));
      FutureTask<Long> second = start(new Session(address, "file"));
      awaitClients(2);
      for (int i = 0; i < TAKEOVERS; i++) {
        takeOver(arguments);
        awaitClients(2);
      }
      enough = true;
      first.get(2, TimeUnit.MINUTES);
      second.get(2, TimeUnit.MINUTES);
    } finally {
      nbdkit.destroyForcibly();
    }
  }

  @Test
  void theServerGoesOnIfTheNewOneCannotTakeOver() throws Exception {
    serving = ServeProcess.ready(arguments("file:" + image));
    try (RawClient client = client("")) {
      client.write(0, (byte) 1);
      assertRefused("disk.img does not exist", arguments("file:" + image + "/../no/disk.img"));
      client.write(1, (byte) 2);
      assertRefused("does not show", arguments("file:" + image, "--fua=none"));
      client.write(2, (byte) 3);
      assertRefused(
          "there is no export \"\" any more", arguments("file:" + image, "--export-name=other"));
      client.write(3, (byte) 4);
      Path smaller = Files.write(directory.resolve("smaller"), new byte[BLOCK]);
      assertRefused("has 4096 bytes, and had " + SIZE, arguments("file:" + smaller));
      assertThat(client.read(0, 4)).containsExactly(1, 2, 3, 4);
      client("").close();
      Missing.unlessInstalled("qemu-io");
      assertThat(Tools.run("qemu-io", "-f", "raw", "-c", "quit", image.toString()).err())
          .as("the image is locked still")
          .contains("lock");
      takeOver(arguments("file:" + image));
      assertThat(client.read(0, 4)).containsExactly(1, 2, 3, 4);
    }
    assertThat(Files.exists(unix)).isTrue();
    serving.stop();
    assertThat(unix).doesNotExist();
    assertThat(control).doesNotExist();
  }

  private static void assertRefused(String why, String... arguments) throws Exception {
    assertThat(ServeProcess.refusal(with("--take-over", arguments))).contains(why);
  }

  /** The new server has no sockets of the service manager by itself, and no options for others. */
  @Test
  void socketsOfTheServiceManagerGoOn() throws Exception {
    Missing.unlessInstalled("python3");
    String[] options = {
      "--control=" + control,
      "--take-over-timeout=2m",
      "--export=disk={file:" + image + "}",
      "--export=free=null:1M"
    };
    List<String> command =
        new ArrayList<>(List.of("python3", "-c", Tools.ACTIVATE, "disk:x.socket", "" + unix));
    command.addAll(ServeProcess.builder(options).command());
    Path said = directory.resolve("said");
    Process activated =
        new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(said.toFile()).start();
    SocketAddress disk = UnixDomainSocketAddress.of(unix + "0");
    SocketAddress all = UnixDomainSocketAddress.of(unix + "1");
    Tools.awaitListening(all);
    try (RawClient restricted = RawClient.connect(disk);
        RawClient free = RawClient.connect(all)) {
      restricted.enter("");
      free.enter("free");
      restricted.write(0, (byte) 1);
      serving = ServeProcess.ready(with("--take-over", options));
      assertThat(activated.waitFor(2, TimeUnit.MINUTES)).isTrue();
      assertThat(activated.exitValue()).as("%s", Files.readString(said)).isZero();
      for (int round = 0; round < 2; round++) {
        Eventually.isTrue("both are announced", () -> readyLines().size() == 2);
        assertThat(readyLines())
            .containsExactly(
                "nbd+unix:///disk?socket=" + unix + "0", "nbd+unix:///disk?socket=" + unix + "1");
        assertThat(restricted.read(0, 1)).containsExactly(1);
        free.read(0, 1);
        assertOnlyDisk(disk);
        try (RawClient late = RawClient.connect(all)) {
          assertThat(late.enter("free").size()).isEqualTo(1 << 20);
          late.disconnect();
        }
        takeOver(options);
      }
      takeOver(with("--unix=" + unix + "0", options));
      assertThat(readyLines()).containsExactly("nbd+unix:///disk?socket=" + unix + "0");
      assertOnlyDisk(disk);
      takeOver(with("--port=0", options));
      assertThat(readyLines()).singleElement().asString().startsWith("nbd://127.0.0.1:");
      assertThat(restricted.read(0, 1)).containsExactly(1);
      free.read(0, 1);
      restricted.disconnect();
      free.disconnect();
      serving.stop();
      assertThat(Path.of(unix + "0")).as("the service manager's socket").exists();
      assertThat(Path.of(unix + "1")).as("the service manager's socket").exists();
    } finally {
      activated.destroyForcibly();
    }
  }

  private List<String> readyLines() {
    try {
      return serving.out().lines().map(line -> line.replaceFirst(".*ready ", "")).toList();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  private static void assertOnlyDisk(SocketAddress address) throws IOException {
    try (RawClient client = RawClient.connect(address).hello(3)) {
      client.option(RawClient.GO, RawClient.infoData("free"));
      client.expectError(RawClient.GO, RawClient.ERR_UNKNOWN);
      assertThat(client.go("").size()).isEqualTo(SIZE);
      client.disconnect();
    }
  }

  @Test
  void aRestartKeepsTheClientsThatItCan() throws Exception {
    // The messages, the image's lock, and one client.
    try (StoringManager manager = manager(3, 3);
        RawClient one = client("")) {
      one.write(0, (byte) 1);
      try (RawClient two = client("")) {
        two.write(1, (byte) 2);
        manager.restart(3, arguments("file:" + image));
        // Either may be the one that is kept.
        assertThat(isServed(one)).isNotEqualTo(isServed(two));
      }
    }
    assertThat(Files.readString(log())).contains("1 connections end: ");
  }

  /** Connects a client by the Unix socket, and lets it choose an export. */
  private RawClient client(String export) throws IOException {
    RawClient client = RawClient.connect(UnixDomainSocketAddress.of(unix));
    client.enter(export);
    return client;
  }

  private static boolean isServed(RawClient client) {
    try {
      return client.read(0, 2).length == 2;
    } catch (IOException | AssertionError gone) {
      return false;
    }
  }

  @Test
  void aStoreThatIsSmallerThanItSaysKeepsWhatItCan() throws Exception {
    try (StoringManager manager = manager(3, 100);
        RawClient one = client("");
        RawClient two = client("")) {
      manager.restart(3, arguments("file:" + image));
      assertThat(isServed(one)).isNotEqualTo(isServed(two));
    }
    assertThat(Files.readString(log()))
        .contains("1 connections of the server before are cut", "took over from nbd-multiconn");
  }

  @Test
  void aRestartCutsAClientInTheMiddleOfARequest() throws Exception {
    try (StoringManager manager = manager(100, 100);
        RawClient stuck = client("");
        RawClient good = client("")) {
      stuck.send(RawClient.requestBytes(0, RawClient.WRITE, 1, 0, BLOCK)).send(new byte[100]);
      good.write(0, (byte) 1);
      manager.restart(3, arguments("file:" + image));
      assertThat(good.read(0, 1)).containsExactly(1);
      stuck.expectEnd();
    }
    assertThat(Files.readString(log())).contains("1 connections have not come to the end");
  }

  @Test
  void theStartAfterOneThatFailedGoesOnWithTheClients() throws Exception {
    try (StoringManager manager = manager(100, 100);
        RawClient client = client("")) {
      client.write(0, (byte) 1);
      manager.restartInVain(3, "--port=none");
      manager.startAgain(2, 3, arguments("file:" + image));
      assertThat(client.read(0, 1)).containsExactly(1);
    }
  }

  @Test
  void aServiceManagerThatDoesNotAnswerKeepsNothing() throws Exception {
    try (StoringManager manager = manager(100, 100);
        RawClient client = client("")) {
      manager.hang();
      manager.restart(0, arguments("file:" + image));
      client.expectEnd();
    }
    assertThat(Files.readString(log()))
        .contains("not left to the next start: the service manager does not answer in time");
  }

  @Test
  void aRestartCutsTheClientsThatWouldNotFindWhatTheyHad() throws Exception {
    String other = "--export=other=file:" + image + "2";
    Files.write(Path.of(image + "2"), new byte[BLOCK]);
    try (StoringManager manager = manager(100, 100, other);
        RawClient cut = client("other");
        RawClient kept = client("")) {
      Files.write(Path.of(image + "2"), new byte[2 * BLOCK]);
      manager.restart(5, arguments("file:" + image, other));
      kept.write(0, (byte) 1);
      cut.expectEnd();
      manager.restart(4, arguments("memory:1M"));
      kept.expectEnd();
      manager.restart(0, arguments("memory:1M"));
    }
    assertThat(Files.readString(log()))
        .contains("a client of the server before is cut: export \"other\" has 8192 bytes")
        .contains("are not left to the next start: ");
  }

  @Test
  void memoryIsNotHandedOver() throws Exception {
    serving = ServeProcess.ready(arguments("memory:1M"));
    assertRefused("is in the memory of this process", arguments("memory:1M"));
  }

  @Test
  void withoutAServerThereIsNothingToTakeOver() throws Exception {
    assertRefused("no take-over of the server at " + control, arguments("file:" + image));
  }
}
