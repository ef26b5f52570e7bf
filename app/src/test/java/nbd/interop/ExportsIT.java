package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import nbd.control.ControlClient;
import nbd.testing.Eventually;
import nbd.testing.RawClient;
import nbd.testing.Running;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Several exports of one server, with real clients, while some of them come and go. */
@Timeout(300)
final class ExportsIT {
  private static final int MANY = 1000;

  @TempDir private Path directory;
  private Path control;
  private Path config;

  @BeforeEach
  void create() {
    control = directory.resolve("control");
    config = directory.resolve("exports.conf");
  }

  private ServeProcess serve(String... arguments) throws Exception {
    List<String> all =
        new ArrayList<>(
            List.of("-U", directory.resolve("socket").toString(), "--control=" + control));
    all.addAll(List.of(arguments));
    return ServeProcess.ready(all.toArray(String[]::new));
  }

  private String ask(String request) throws IOException {
    try (ControlClient client = ControlClient.connect(control)) {
      client.request(request);
      return client.lines();
    }
  }

  private String refusal(String request) {
    try {
      return "answered: " + ask(request);
    } catch (IOException refused) {
      return String.valueOf(refused.getMessage());
    }
  }

  private boolean hasNoClients() {
    return refusal("exports").lines().skip(1).allMatch(line -> line.matches(".* serving +0 .*"));
  }

  private static List<String> listed(ServeProcess serve) throws Exception {
    return Tools.run("nbdinfo", "--list", serve.uri())
        .ok()
        .out()
        .lines()
        .filter(line -> line.startsWith("export="))
        .toList();
  }

  @Test
  void eachExportHasItsStorageAndItsOptions() throws Exception {
    Path disk = Files.write(directory.resolve("disk one.img"), new byte[1 << 20]);
    try (ServeProcess serve =
        serve(
            "--description=of the server",
            "--export=a={'" + disk + "' --read-only}",
            "--export=b={memory:2M --description 'its own' --multi-conn-mode=disable}",
            "--export=naïve ☃=null:3M",
            "memory:4M")) {
      assertThat(listed(serve))
          .containsExactly("export=\"\":", "export=\"a\":", "export=\"b\":", "export=\"naïve ☃\":");
      String a = Tools.run("nbdinfo", serve.uri("a")).ok().out();
      assertThat(a).contains("export-size: 1048576", "is_read_only: true", "of the server");
      String b = Tools.run("nbdinfo", serve.uri("b")).ok().out();
      assertThat(b).contains("export-size: 2097152", "can_multi_conn: false", "its own");
      Tools.qemuIo(serve.uri(), "write -P 1 0 4096", "flush");
      Tools.qemuIo(serve.uri("b"), "write -P 2 0 4096", "read -P 2 0 4096");
      Tools.qemuIo(serve.uri(), "read -P 1 0 4096");
      // A client that has ended is served until the server has seen its end.
      Eventually.isTrue("no client is left", this::hasNoClients);
      assertThat(ask("exports"))
          .containsPattern("\"\" +serving +0 +4M +writable +auto +memory\n")
          .containsPattern("a +serving +0 +1M +read-only +auto +file .*disk one.img\n")
          .containsPattern("b +serving +0 +2M +writable +disable +memory\n")
          .containsPattern("\"naïve ☃\" +serving +0 +3M +writable +auto +null\n");
      serve.stopQuietly();
    }
  }

  @Test
  void storageThatNamesItsExportsHasTheNamesThatAreLeft() throws Exception {
    Path images = Files.createDirectory(directory.resolve("images"));
    Files.write(images.resolve("one"), new byte[512]);
    Files.write(images.resolve("two"), new byte[1024]);
    try (ServeProcess serve = serve("--export=two=memory:1M", "dir:" + images)) {
      assertThat(listed(serve)).containsExactlyInAnyOrder("export=\"two\":", "export=\"one\":");
      assertThat(Tools.run("nbdinfo", "--size", serve.uri("one")).ok().out()).isEqualTo("512\n");
      assertThat(Tools.run("nbdinfo", "--size", serve.uri("two")).ok().out())
          .isEqualTo("1048576\n");
      assertThat(ask("exports")).contains("(names of its own)");
      ask("remove two");
      assertThat(Tools.run("nbdinfo", "--size", serve.uri("two")).ok().out()).isEqualTo("1024\n");
      assertThat(refusal("remove one")).contains("no export \"one\"");
    }
  }

  /** A session of nbdsh goes on while other exports are removed and added, at each step. */
  @Test
  void aClientNoticesNothingOfOtherExports() throws Exception {
    Path step = directory.resolve("step");
    Path out = directory.resolve("out");
    try (ServeProcess serve = serve("--export=gone=memory:1M", "--export=kept=memory:1M")) {
      String script =
          """
          import os, time
          h.connect_uri("%s")
          for i in range(3):
            h.pwrite(bytes([i + 1]) * 512, 0)
            open("%s%%d" %% i, "w").close()
            while not os.path.exists("%s%%d.done" %% i):
              h.flush()
              assert h.pread(512, 0) == bytes([i + 1]) * 512
          print("well")
          """
              .formatted(serve.uri("kept"), step, step);
      Process nbdsh = Tools.start(out, "nbdsh", "-c", script);
      String[] requests = {"remove gone", "add new=memory:3M", "drain new"};
      for (int i = 0; i < requests.length; i++) {
        Path reached = Path.of(step + "" + i);
        Eventually.isTrue("nbdsh is at " + i, () -> Files.exists(reached) || !nbdsh.isAlive());
        ask(requests[i]);
        Files.createFile(Path.of(step + "" + i + ".done"));
      }
      assertThat(Tools.result(nbdsh, out).ok().out()).isEqualTo("well\n");
      assertThat(listed(serve)).containsExactly("export=\"kept\":");
    }
  }

  @Test
  void whatAClientHadWrittenIsInTheFileWhenItsExportIsRemoved() throws Exception {
    Path disk = Files.write(directory.resolve("disk"), new byte[1 << 20]);
    try (ServeProcess serve =
        serve("--export=cached={" + disk + " --cache=writeback}", "memory:1M")) {
      try (RawClient client = serve.client("cached");
          RawClient other = serve.client("")) {
        client.write(0, (byte) 9);
        assertThat(refusal("add again={" + disk + "}")).contains("export again: ", disk.toString());
        assertThat(ask("remove cached")).isEmpty();
        client.expectEnd();
        assertThat(Files.readAllBytes(disk)[0]).isEqualTo((byte) 9);
        other.write(0, (byte) 1).disconnect();
        // Its lock is gone, too.
        assertThat(ask("add again={" + disk + "}")).isEmpty();
        Tools.qemuIo(serve.uri("again"), "read -P 9 0 1");
      }
      serve.stop();
    }
  }

  @Test
  void aClientThatNeverReadsIsCutAndTheExportIsRemoved() throws Exception {
    int size = 32 << 20;
    try (ServeProcess serve = serve("--export=a=memory:32M", "memory:1M")) {
      try (RawClient greedy = serve.client("a");
          RawClient other = serve.client("")) {
        for (int i = 0; i < 10; i++) {
          greedy.request(0, RawClient.READ, i, 0, size);
        }
        assertThat(ask("remove a")).isEmpty();
        assertThat(serve.log()).contains("did not end in time", "\"a\"");
        other.write(0, (byte) 1).disconnect();
      }
      serve.stop();
    }
  }

  @Test
  void theFileIsReadAgainOnSighupAndOnRequest() throws Exception {
    Files.writeString(
        config,
        """
        [export kept]
        backend = memory:1M
        [export changed]
        backend = memory:1M
        [export gone]
        backend = memory:1M
        """);
    try (ServeProcess serve = serve("--config=" + config, "--export=own=memory:1M")) {
      try (RawClient kept = serve.client("kept");
          RawClient own = serve.client("own");
          RawClient changed = serve.client("changed");
          RawClient gone = serve.client("gone")) {
        kept.write(0, (byte) 1);
        ask("drain own");
        own.expectEnd();
        Files.writeString(
            config,
            """
            [export changed]
            backend = memory:2M
            [export kept]
            backend = memory:1M
            [export new]
            backend = memory:1M
            [export broken]
            backend = /no/such/file
            """);
        serve.signal("HUP");
        gone.expectEnd();
        changed.expectEnd();
        Eventually.isTrue("it is reloaded", () -> serve.said("SIGHUP: "));
        assertThat(serve.log())
            .contains(config + ":7: ", "/no/such/file")
            .contains("exports removed: 2, added: 2, untouched: 1");
        kept.write(0, (byte) 2);
        assertThat(listed(serve))
            .containsExactlyInAnyOrder(
                "export=\"kept\":", "export=\"own\":", "export=\"changed\":", "export=\"new\":");
        assertThat(Tools.run("nbdinfo", "--size", serve.uri("changed")).ok().out())
            .isEqualTo("2097152\n");
        String before = Files.readString(config);
        Files.writeString(config, before + "cahe = none\n");
        assertThat(refusal("reload"))
            .contains("nothing is changed: " + config + ":9: ", "did you mean --cache?");
        Files.writeString(config, before + "[export own]\nbackend = null:1M\n");
        assertThat(refusal("reload")).contains(config + ":9: there is already an export \"own\"");
        Files.writeString(config, before.replace("/no/such/file", "null:1M"));
        assertThat(ask("reload")).isEqualTo("exports removed: 0, added: 1, untouched: 3\n");
        assertThat(listed(serve)).hasSize(5);
        ask("remove new");
        assertThat(ask("reload")).isEqualTo("exports removed: 0, added: 1, untouched: 3\n");
        kept.write(0, (byte) 3).disconnect();
      }
      serve.stop();
    }
  }

  @Test
  void aThousandExportsComeAndGo() throws Exception {
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < MANY; i++) {
      text.append("[export disk%d]\nbackend = memory:%dK\n".formatted(i, i + 1));
    }
    Files.writeString(config, text);
    try (ServeProcess serve = serve("--config=" + config)) {
      assertThat(serve.uri()).contains("/disk0?");
      assertThat(ask("exports").lines()).hasSize(MANY + 1);
      assertThat(Tools.run("nbdinfo", "--size", serve.uri("disk999")).ok().out())
          .isEqualTo("1024000\n");
      try (RawClient client = serve.client("disk500")) {
        Files.writeString(config, "[export disk500]\nbackend = memory:501K\n");
        assertThat(ask("reload")).isEqualTo("exports removed: 999, added: 0, untouched: 1\n");
        client.write(0, (byte) 1);
        Files.writeString(config, text);
        assertThat(ask("reload")).isEqualTo("exports removed: 0, added: 999, untouched: 1\n");
        client.write(0, (byte) 1).disconnect();
      }
      serve.stop();
    }
  }

  /** Clients of one export come and go, those of another stay, and two people ask for reloads. */
  @Test
  void reloadsWhileClientsComeAndGoLoseNobody() throws Exception {
    String kept = "[export kept]\nbackend = memory:1M\n";
    String coming = "[export coming]\nbackend = memory:1M\n";
    Files.writeString(config, kept);
    AtomicBoolean over = new AtomicBoolean();
    try (ServeProcess serve = serve("--config=" + config);
        RawClient staying = serve.client("kept")) {
      List<Running> clients = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        clients.add(
            Running.start(
                () -> {
                  while (!over.get()) {
                    visit(serve);
                  }
                }));
      }
      Running asking =
          Running.start(
              () -> {
                while (!over.get()) {
                  ask("exports");
                  ask("connections --json");
                }
              });
      for (int i = 0; i < 30; i++) {
        Files.writeString(config, i % 2 == 0 ? kept + coming : kept);
        ask("reload");
        staying.write(0, (byte) i);
      }
      over.set(true);
      asking.join();
      for (Running client : clients) {
        client.join();
      }
      staying.disconnect();
      serve.stop();
      assertThat(serve.err()).doesNotContain("ERROR", "mistake");
    }
  }

  /** Opens the export that comes and goes, and writes until it is ended. */
  private static void visit(ServeProcess serve) throws IOException {
    try (RawClient client = RawClient.connect(serve.address())) {
      client.hello(3).option(RawClient.GO, RawClient.infoData("coming"));
      RawClient.Reply reply = client.reply(RawClient.GO);
      if (reply.type() == RawClient.ERR_UNKNOWN) {
        client.abort();
        return;
      }
      client.expectInfos(RawClient.GO);
      for (int i = 0; i < 100; i++) {
        client.write(0, (byte) i);
      }
    } catch (IOException | AssertionError ended) {
      // The export was removed, between two requests.
    }
  }

  @Test
  void countsAreKeptForEachExport() throws Exception {
    Path stats = directory.resolve("stats");
    try (ServeProcess serve =
        serve("--stats=" + stats, "--export=a=memory:1M", "--export=b=memory:1M", "memory:1M")) {
      try (RawClient a = serve.client("a");
          RawClient b = serve.client("b")) {
        a.write(0, (byte) 1);
        b.write(0, (byte) 1).write(0, (byte) 1);
      }
      ask("remove a");
      ask("add a=memory:1M");
      try (RawClient a = serve.client("a")) {
        a.write(0, (byte) 1);
      }
      serve.stop();
      assertThat(Files.readString(stats))
          .containsPattern("^\\{\"client\":\\{\"read\":0,\"write\":4,")
          .containsPattern("\"exports\":\\{.*\"a\":\\{\"client\":\\{\"read\":0,\"write\":2,")
          .containsPattern("\"b\":\\{\"client\":\\{\"read\":0,\"write\":2,");
    }
  }
}
