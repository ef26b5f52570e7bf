package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The output of the command info, which is nbdinfo's. */
@Timeout(300)
final class InfoCommandIT {
  @TempDir private Path directory;

  @BeforeAll
  static void needPeers() {
    Tools.need("nbdinfo", "nbdkit");
  }

  private static Tools.Result info(String... arguments) throws Exception {
    return ServeProcess.command("info", arguments);
  }

  /** Compares with nbdinfo, but without the content, about which it asks file(1). */
  private static void sameAsNbdinfo(String uri) throws Exception {
    String[][] cases = {{}, {"--json"}, {"--list"}, {"--list", "--json"}};
    for (String[] options : cases) {
      same(uri, Tools.run(nbdinfo(uri, "--no-content", options)), options);
    }
    for (String[] options : new String[][] {{"--map"}, {"--map", "--json"}}) {
      same(uri, Tools.run(nbdinfo(uri, "--map", options)), options);
    }
  }

  private static String[] nbdinfo(String uri, String first, String... options) {
    Stream<String> others = Stream.of(options).filter(option -> !option.equals(first));
    return Stream.of(Stream.of("nbdinfo", first), others, Stream.of(uri))
        .flatMap(words -> words)
        .toArray(String[]::new);
  }

  private static void same(String uri, Tools.Result nbdinfo, String... options) throws Exception {
    Tools.Result ours =
        info(Stream.concat(Stream.of(options), Stream.of(uri)).toArray(String[]::new));
    assertThat(ours.status()).as(String.join(" ", options)).isEqualTo(nbdinfo.status());
    if (ours.status() == 0) {
      assertThat(withoutExtended(ours.out()))
          .as(String.join(" ", options))
          .isEqualTo(withoutExtended(nbdinfo.out()));
    } else {
      assertThat(ours.out()).isEmpty();
      assertThat(ours.err()).startsWith("nbd-multiconn: " + uri).hasLineCount(1);
    }
  }

  /** Leaves extended headers out, for which an older libnbd does not ask. */
  private static String withoutExtended(String text) {
    return text.replace("using extended packets", "using structured packets")
        .replaceAll("\"extended\": \\w+,\n", "");
  }

  @Test
  void ofNbdkit() throws Exception {
    try (UpstreamProcess server =
        UpstreamProcess.nbdkit(directory, "sparse-random", "64M", "seed=1")) {
      sameAsNbdinfo(server.uri());
    }
  }

  @Test
  void ofSimpleReplies() throws Exception {
    try (UpstreamProcess server = UpstreamProcess.nbdkit(directory, "--no-sr", "memory", "1000")) {
      sameAsNbdinfo(server.uri());
    }
  }

  @Test
  void ofAnOldHandshake() throws Exception {
    try (UpstreamProcess server =
        UpstreamProcess.nbdkit(directory, "--mask-handshake=0", "memory", "1536K")) {
      sameAsNbdinfo(server.uri());
    }
  }

  @Test
  void ofSeveralExportsWithDescriptions() throws Exception {
    try (UpstreamProcess server =
        UpstreamProcess.nbdkit(
            directory,
            "--filter=exportname",
            "memory",
            "1M",
            "exportname=a",
            "exportname=b c",
            "exportname-list=explicit",
            "exportdesc=fixed:a \"disk\" \\ é")) {
      sameAsNbdinfo(server.uri("a"));
    }
  }

  @Test
  void ofQemuNbd() throws Exception {
    Tools.need("qemu-nbd");
    Path image = Files.write(directory.resolve("image"), new byte[1 << 20]);
    try (UpstreamProcess server =
        UpstreamProcess.qemuNbd(
            directory, "-e", "8", "-x", "disk", "-A", "-D", "a disk", image.toString())) {
      sameAsNbdinfo(server.uri("disk"));
    }
  }

  @Test
  void ofOtherContexts() throws Exception {
    Tools.need("qemu-nbd", "qemu-img", "qemu-io");
    String image = directory.resolve("image.qcow2").toString();
    Tools.run("qemu-img", "create", "-f", "qcow2", image, "4M").ok();
    Tools.run("qemu-img", "bitmap", "--add", "-g", "64k", image, "since-monday").ok();
    Tools.run("qemu-io", "-f", "qcow2", "-c", "write 1M 64k", "-c", "write 2M 1M", image).ok();
    try (UpstreamProcess server =
        UpstreamProcess.qemuNbd(
            directory, "-f", "qcow2", "-r", "-A", "-B", "since-monday", "-x", "disk", image)) {
      String uri = server.uri("disk");
      sameAsNbdinfo(uri);
      String bitmap = "--map=qemu:dirty-bitmap:since-monday";
      for (String map : List.of(bitmap, "--map=qemu:allocation-depth", "--map=base:allocation")) {
        for (String[] options : new String[][] {{map}, {map, "--json"}}) {
          same(uri, Tools.run(nbdinfo(uri, map, options)), options);
        }
      }
      assertThat(info(bitmap, uri).ok().out()).contains("  1  dirty\n", "  0  clean\n");
      for (String unknown : List.of("qemu:dirty-bitmap:x", "qemu:", "", "nocolon")) {
        Tools.Result none = info("--map=" + unknown, uri);
        assertThat(none.status()).as(unknown).isEqualTo(1);
        assertThat(none.err()).endsWith("does not know the metadata context \"" + unknown + "\"\n");
        assertThat(none.err()).hasLineCount(1);
      }
    }
  }

  @Test
  void ofOurOwnServer() throws Exception {
    try (ServeProcess serve =
        ServeProcess.ready(
            "-U", directory.resolve("socket").toString(), "-e", "x", "-e", "y", "memory:1M")) {
      sameAsNbdinfo(serve.uri());
    }
  }

  @Test
  void anErrorIsOneLineOnStandardError() throws Exception {
    Tools.Result refused = info("nbd+unix:///x?socket=" + directory.resolve("nothing"));
    assertThat(refused.status()).isEqualTo(1);
    assertThat(refused.out()).isEmpty();
    assertThat(refused.err())
        .startsWith("nbd-multiconn: nbd+unix:///x?socket=")
        .contains("cannot connect")
        .hasLineCount(1);
  }

  @Test
  void sizeAndQuestionsAreAnsweredAsNbdinfoDoes() throws Exception {
    List<String> abilities =
        List.of(
            "cache",
            "connect",
            "df",
            "fast-zero",
            "flush",
            "fua",
            "multi-conn",
            "read",
            "structured-reply",
            "trim",
            "write",
            "zero");
    List<String> properties = List.of("read-only", "rotational", "tls");
    Path other = Files.createDirectory(directory.resolve("other"));
    try (UpstreamProcess full = UpstreamProcess.nbdkit(directory, "memory", "1M");
        UpstreamProcess poor = UpstreamProcess.nbdkit(other, "-r", "--no-sr", "null", "1000")) {
      for (String uri : List.of(full.uri(), poor.uri())) {
        sameAnswer(uri, "--size");
        for (String ability : abilities) {
          sameAnswer(uri, "--can", ability);
        }
        for (String property : properties) {
          sameAnswer(uri, "--is", property);
        }
      }
    }
    sameAnswer("nbd+unix:///?socket=" + directory.resolve("nothing"), "--can", "connect");
    sameAnswer("nbd+unix:///?socket=" + directory.resolve("nothing"), "--size");
  }

  private static void sameAnswer(String uri, String... options) throws Exception {
    String[] words = Stream.concat(Stream.of(options), Stream.of(uri)).toArray(String[]::new);
    Tools.Result nbdinfo =
        Tools.run(Stream.concat(Stream.of("nbdinfo"), Stream.of(words)).toArray(String[]::new));
    Tools.Result ours = info(words);
    assertThat(ours.status()).as(String.join(" ", words)).isEqualTo(nbdinfo.status());
    assertThat(ours.out()).as(String.join(" ", words)).isEqualTo(nbdinfo.out());
  }
}
