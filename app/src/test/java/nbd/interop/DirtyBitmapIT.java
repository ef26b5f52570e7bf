package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.net.UnixDomainSocketAddress;
import java.util.List;
import nbd.filter.SerializeFilter;
import nbd.memory.MemoryBackend;
import nbd.server.TestServer;
import nbd.storage.ThreadModel;
import nbd.testing.BitmapBackend;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Other programs' clients, which read a dirty bitmap of a server in this process. */
@Timeout(300)
final class DirtyBitmapIT {
  private static final int PAGE = BitmapBackend.PAGE;
  private static final String DAY = "qemu:dirty-bitmap:day";

  private static BitmapBackend storage() {
    return new BitmapBackend(new MemoryBackend(5 * PAGE), "day");
  }

  private static String socket(TestServer server) {
    return ((UnixDomainSocketAddress) server.address()).getPath().toString();
  }

  private static String uri(TestServer server) {
    return "nbd+unix:///?socket=" + socket(server);
  }

  @Test
  void nbdinfoListsItAndShowsItAsWeDo() throws Exception {
    try (TestServer server = TestServer.with(storage()).readOnly().start()) {
      String uri = uri(server);
      assertThat(Tools.run("nbdinfo", "--no-content", uri).ok().out())
          .contains("\t\tbase:allocation\n\t\t" + DAY + "\n");
      assertThat(ServeProcess.command("info", uri).ok().out())
          .contains("\t\tbase:allocation\n\t\t" + DAY + "\n");
      assertThat(ServeProcess.command("info", "--json", uri).ok().out()).contains('"' + DAY + '"');
      String text =
          """
                   0       65536    1  dirty
               65536      131072    0  clean
              196608       65536    1  dirty
              262144       65536    0  clean
          """;
      String map = "--map=" + DAY;
      assertThat(Tools.run("nbdinfo", map, uri).ok().out()).isEqualTo(text);
      assertThat(ServeProcess.command("info", map, uri).ok().out()).isEqualTo(text);
      assertThat(ServeProcess.command("info", map, "--json", uri).ok().out())
          .isEqualTo(Tools.run("nbdinfo", map, "--json", uri).ok().out());
      assertThat(Tools.run("nbdinfo", "--map", uri).ok().out())
          .isEqualTo(ServeProcess.command("info", "--map", uri).ok().out())
          .contains("327680    3  hole,zero");
      assertThat(Tools.run("nbdinfo", "--map=qemu:dirty-bitmap:night", uri).status())
          .isEqualTo(ServeProcess.command("info", "--map=" + DAY + "s", uri).status())
          .isEqualTo(1);
    }
  }

  @Test
  void libnbdReadsBothContextsAtOnce() throws Exception {
    String script =
        """
        import nbd, sys
        h = nbd.NBD()
        h.add_meta_context("base:allocation")
        h.add_meta_context("qemu:dirty-bitmap:day")
        h.connect_uri(sys.argv[1])
        def show(context, offset, entries, error):
            print(context, offset, [tuple(e) if isinstance(e, tuple) else e for e in entries])
        h.block_status(h.get_size(), 0, show)
        h.block_status(100, 65536, show, nbd.CMD_FLAG_REQ_ONE)
        h.shutdown()
        """;
    Tools.need("nbdinfo");
    try (TestServer server = TestServer.with(storage()).readOnly().start()) {
      assertThat(Tools.run("/usr/bin/python3", "-c", script, uri(server)).ok().out())
          .isEqualTo(
              """
              base:allocation 0 [327680, 3]
              qemu:dirty-bitmap:day 0 [65536, 1, 131072, 0, 65536, 1, 65536, 0]
              base:allocation 65536 [100, 3]
              qemu:dirty-bitmap:day 65536 [100, 0]
              """);
    }
  }

  /** With x-dirty-bitmap, qemu shows the dirty parts as holes. */
  @Test
  void qemuMapsIt() throws Exception {
    Tools.need("qemu-img");
    try (TestServer server = TestServer.with(storage()).readOnly().start()) {
      String image =
          "driver=nbd,server.type=unix,server.path=%s,x-dirty-bitmap=%s"
              .formatted(socket(server), DAY);
      String map = Tools.run("qemu-img", "map", "--output=json", "--image-opts", image).ok().out();
      assertThat(
              map.lines()
                  .map(
                      line ->
                          line.replaceAll(
                              ".*\"start\": (\\d+), \"length\": (\\d+),.*\"data\": (\\w+).*",
                              "$1 $2 $3"))
                  .toList())
          .isEqualTo(
              List.of(
                  "0 65536 false", "65536 131072 true", "196608 65536 false", "262144 65536 true"));
    }
  }

  /** Listing the contexts opens the export, which only one client can do. */
  @Test
  void infoOfAServerThatTakesOneClientAtATime() throws Exception {
    SerializeFilter storage = new SerializeFilter(storage(), ThreadModel.SERIALIZE_CONNECTIONS);
    try (TestServer server = TestServer.with(storage).maxConnections(5).start()) {
      assertThat(ServeProcess.command("info", uri(server)).ok().out()).contains(DAY);
      assertThat(ServeProcess.command("info", "--list", uri(server)).ok().out()).contains(DAY);
      assertThat(Tools.run("nbdinfo", "--no-content", uri(server)).ok().out()).contains(DAY);
    }
  }
}
