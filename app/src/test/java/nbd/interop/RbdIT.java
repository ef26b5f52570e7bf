package nbd.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import nbd.testing.Bytes;
import nbd.testing.CephCluster;
import nbd.testing.Eventually;
import nbd.testing.RawClient;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Images of a real Ceph cluster. */
@Timeout(300)
final class RbdIT {
  private static final int BLOCK = 4096;
  private static final int EIO = 5;
  private static final int NBD_ESHUTDOWN = 108;

  /** The random histories that caches are checked with: {@code -Dnbd.rbd.seeds=200} for more. */
  private static final int SEEDS = Integer.getInteger("nbd.rbd.seeds", 1);

  @TempDir private Path directory;

  private final CephCluster cluster = CephCluster.shared();

  RbdIT() throws Exception {}

  private String image(String name, String... options) throws Exception {
    List<String> command = new ArrayList<>(List.of("rbd", "create", name, "--size", "64M"));
    command.addAll(List.of(options));
    cluster.run(command.toArray(String[]::new));
    return "rbd:rbd/" + name;
  }

  private ServeProcess serve(String backend, String... options) throws Exception {
    return ServeProcess.on(directory, backend, with(cluster, options));
  }

  private static String[] with(CephCluster cluster, String... options) {
    List<String> all = new ArrayList<>(List.of("--ceph-conf=" + cluster.conf()));
    all.addAll(List.of(options));
    return all.toArray(String[]::new);
  }

  private String refusal(String backend, String... options) throws Exception {
    List<String> all = new ArrayList<>(List.of("-U", directory.resolve("socket").toString()));
    all.addAll(List.of(with(cluster, options)));
    all.add(backend);
    return ServeProcess.refusal(all.toArray(String[]::new));
  }

  private static byte[] block(int content) {
    byte[] block = new byte[BLOCK];
    Arrays.fill(block, (byte) content);
    return block;
  }

  @Test
  void clientsUseAnImage() throws Exception {
    try (ServeProcess serve = serve(image("used"))) {
      String uri = serve.uri();
      assertThat(Tools.run("nbdinfo", uri).ok().out())
          .contains("export-size: 67108864")
          .contains("can_multi_conn: true", "can_fua: true", "block_size_preferred: 4194304");
      Tools.run(
              Tools.fio(
                  uri, "--rw=randrw", "--size=16M", "--bs=4k-256k", "--iodepth=8", "--fsync=16"))
          .ok();
      Tools.qemuIo(
          uri,
          "write -P 7 1M 1M",
          "write -z 1025K 3K",
          "discard 1536K 64K",
          "write -f -P 9 63M 4K",
          "read -P 7 1M 1K",
          "read -P 0 1025K 3K",
          "read -P 7 1028K 4K",
          "read -P 9 63M 4K",
          "flush");
      Path copy = directory.resolve("copy");
      Tools.run("nbdcopy", uri, copy.toString()).ok();
      Path export = directory.resolve("export");
      cluster.run("rbd", "export", "used", export.toString());
      assertThat(Files.mismatch(copy, export)).isEqualTo(-1);
      serve.stopQuietly();
    }
  }

  @Test
  void extentsAreThoseOfTheImage() throws Exception {
    try (ServeProcess serve = serve(image("extents"))) {
      Tools.qemuIo(serve.uri(), "write 8M 4K", "write -z -u 12M 4M", "write 20M 1M");
      assertThat(Tools.run("nbdinfo", "--map", serve.uri()).ok().out())
          .isEqualTo(
              """
                       0     8388608    3  hole,zero
                 8388608        4096    0  data
                 8392704    12578816    3  hole,zero
                20971520     1048576    0  data
                22020096    45088768    3  hole,zero
              """);
    }
  }

  @Test
  void aPoolServesItsImagesByTheirNames() throws Exception {
    cluster.run("ceph", "osd", "pool", "create", "several", "1");
    cluster.run("rbd", "pool", "init", "several");
    for (String name : List.of("one", "two")) {
      cluster.run("rbd", "create", "several/" + name, "--size", name.length() + "M");
    }
    cluster.run("rbd", "snap", "create", "several/two@old", "--no-progress");
    cluster.run("rbd", "namespace", "create", "several/space");
    cluster.run("rbd", "create", "several/space/three", "--size", "5M");
    try (ServeProcess serve = serve("rbd:several")) {
      assertThat(ServeProcess.command("info", "--list", serve.uri()).ok().out())
          .contains("\"one\"", "\"two\"")
          .doesNotContain("three");
      assertThat(Tools.run("nbdinfo", "--size", serve.uri("two@old")).ok().out())
          .isEqualTo("3145728\n");
      assertThat(Tools.run("nbdinfo", serve.uri("two@old")).out()).contains("is_read_only: true");
      assertThat(Tools.run("nbdinfo", serve.uri("three")).status()).isNotZero();
      assertThat(Tools.run("nbdinfo", serve.uri("space/three")).status()).isNotZero();
      assertThat(Tools.run("nbdinfo", serve.uri()).status()).isNotZero();
      serve.stop();
      assertThat(serve.err())
          .contains("\"three\" cannot be opened: rbd:several/three does not exist")
          .contains("name of the image is missing");
    }
    try (ServeProcess serve = serve("rbd:several/space/three")) {
      assertThat(Tools.run("nbdinfo", "--size", serve.uri()).ok().out()).isEqualTo("5242880\n");
    }
  }

  @Test
  void whatIsWrongIsSaidBeforeTheStart() throws Exception {
    assertThat(refusal("rbd:rbd/none")).contains("rbd:rbd/none does not exist");
    assertThat(refusal("rbd:none/none")).contains("there is no pool none");
    assertThat(refusal("rbd:rbd/none", "--ceph-option=none=1")).contains("Ceph has no option none");
    assertThat(refusal("rbd:rbd/none", "--ceph-option=rados_osd_op_timeout=x"))
        .contains("\"x\" is no value for Ceph's option rados_osd_op_timeout");
    String missing = directory.resolve("none").toString();
    assertThat(ServeProcess.refusal("-p", "0", "--ceph-conf=" + missing, "rbd:rbd/none"))
        .contains("none: not there (ENOENT)");
  }

  @Test
  void optionsOfTheImageThatBreakFlushesAreRefused() throws Exception {
    String around = image("around");
    cluster.run("rbd", "config", "image", "set", "around", "rbd_cache", "true");
    cluster.run("rbd", "config", "image", "set", "around", "rbd_cache_policy", "writearound");
    assertThat(refusal(around)).contains("rbd_cache_policy is set to writearound for this image");
    String persistent = image("persistent");
    cluster.run("rbd", "config", "image", "set", "persistent", "rbd_persistent_cache_mode", "ssd");
    assertThat(refusal(persistent, "--rbd-handle=connection"))
        .contains("rbd_persistent_cache_mode=ssd", "use --rbd-handle=shared");
  }

  @Test
  void aDifferenceOfSnapshotsIsADirtyBitmap() throws Exception {
    String image = image("changing");
    try (ServeProcess serve = serve(image)) {
      Tools.qemuIo(serve.uri(), "write -P 1 0 8M");
      cluster.run("rbd", "snap", "create", "changing@s1", "--no-progress");
      Tools.qemuIo(serve.uri(), "write -P 2 1M 64K", "write -z -u 4M 4M", "write -P 3 32M 4K");
      cluster.run("rbd", "snap", "create", "changing@s2", "--no-progress");
      Tools.qemuIo(serve.uri(), "write -P 4 0 64M");
    }
    try (ServeProcess serve = serve(image + "@s2?since=s1")) {
      String context = "qemu:dirty-bitmap:since-s1";
      assertThat(Tools.run("nbdinfo", serve.uri()).ok().out()).contains(context);
      String map =
          """
                   0     1048576    0  clean
             1048576       65536    1  dirty
             1114112     3080192    0  clean
             4194304     4194304    1  dirty
             8388608    25165824    0  clean
            33554432        4096    1  dirty
            33558528    33550336    0  clean
          """;
      assertThat(Tools.run("nbdinfo", "--map=" + context, serve.uri()).ok().out()).isEqualTo(map);
      assertThat(ServeProcess.command("info", "--map=" + context, serve.uri()).ok().out())
          .isEqualTo(map);
      RawClient client = serve.client();
      assertThat(client.read(1 << 20, BLOCK)).isEqualTo(block(2));
      assertThat(client.read(4 << 20, BLOCK)).isEqualTo(block(0));
      assertThat(client.read(0, BLOCK)).isEqualTo(block(1));
    }
    assertThat(refusal(image + "@s2?since=s0")).contains("no snapshot s0 to compare with");
    assertThat(refusal(image + "@s1?since=s2")).contains("the snapshot s2 is not older");
  }

  @Test
  void aSizeThatChangesIsSeenByLaterConnections() throws Exception {
    try (ServeProcess serve = serve(image("growing"))) {
      RawClient before = serve.client();
      before.write(0, block(1));
      cluster.run("rbd", "resize", "growing", "--size", "80M", "--no-progress");
      Tools.qemuIo(serve.uri(), "write -P 5 79M 1M", "read -P 5 79M 1M");
      assertThat(Tools.run("nbdinfo", "--size", serve.uri()).ok().out()).isEqualTo("83886080\n");
      assertThat(before.read(0, BLOCK)).isEqualTo(block(1));
      Eventually.isTrue("the size is logged", () -> serve.said("has 83886080 bytes now"));
      cluster.run("rbd", "resize", "growing", "--size", "32M", "--allow-shrink", "--no-progress");
      Eventually.isTrue("the size is logged", () -> serve.said("has 33554432 bytes now"));
      long end = 32 << 20;
      before.call(EIO, 0, RawClient.WRITE, end - BLOCK, 2 * BLOCK, new byte[2 * BLOCK]);
      before.call(EIO, 0, RawClient.READ, end - BLOCK, 2 * BLOCK);
      before.call(EIO, 0, RawClient.WRITE_ZEROES, end, BLOCK);
      assertThat(before.read(0, BLOCK)).isEqualTo(block(1));
    }
  }

  @Test
  void aClientThatIsShutOutFailsAndTheNextOneIsServed() throws Exception {
    String image = image("locked");
    try (ServeProcess serve = serve(image)) {
      RawClient client = serve.client();
      client.write(0, block(1));
      String socket = directory.resolve("other").toString();
      List<String> other = List.of("-U", socket, "--rbd-break-lock", image);
      try (ServeProcess thief = ServeProcess.ready(with(cluster, other.toArray(String[]::new)))) {
        thief.client().write(BLOCK, block(2));
        assertThat(thief.err()).contains("took the lock from 127.0.0.1:");
        // The server may have seen it before, when it was told of a change of the image's header.
        int error = client.errorOf(0, RawClient.WRITE, 0, BLOCK, block(3));
        assertThat(error).isIn(EIO, NBD_ESHUTDOWN);
        RawClient next = serve.client();
        assertThat(next.read(BLOCK, BLOCK)).isEqualTo(block(2));
        assertThat(serve.err()).contains("is locked by 127.0.0.1:");
        Eventually.isTrue("it is logged", () -> serve.said("has shut this client out"));
      }
    }
  }

  @Test
  void cachesOfConnectionsNeedTheFlushesOfEmulation() throws Exception {
    String image = image("cached", "--image-feature", "layering");
    String handles = "--rbd-handle=connection";
    try (ServeProcess serve = serve(image, handles, "--multi-conn-mode=unsafe")) {
      assertThat(readsAfterAFlush(serve)).as("what is in the cache").isEqualTo(block(0));
    }
    try (ServeProcess serve = serve(image, handles)) {
      assertThat(readsAfterAFlush(serve)).isEqualTo(block(2));
      for (int i = 0; i < SEEDS; i++) {
        assertThat(check(serve).ok().out())
            .contains("multi-conn: offered", "flush consistent: yes");
      }
      serve.stopQuietly();
    }
  }

  /** Writes and flushes on one connection what another one has read before, and reads it there. */
  private static byte[] readsAfterAFlush(ServeProcess serve) throws Exception {
    RawClient reader = serve.client();
    RawClient writer = serve.client();
    writer.write(0, block(0)).flush();
    reader.flush();
    assertThat(reader.read(0, BLOCK)).isEqualTo(block(0));
    writer.write(0, block(2)).flush();
    return reader.read(0, BLOCK);
  }

  private static Tools.Result check(ServeProcess serve) throws Exception {
    return ServeProcess.command(
        "check", "--overwrite", "--region=0:4M", "--duration=4s", serve.uri());
  }

  @Test
  void requestsOfAClusterThatHangsFailAndAreServedWhenItGoesOn() throws Exception {
    try (CephCluster own = CephCluster.start()) {
      own.run("rbd", "create", "disk", "--size", "64M");
      try (ServeProcess serve =
          ServeProcess.on(directory, "rbd:rbd/disk", with(own, "--ceph-timeout=12s"))) {
        RawClient client = serve.client();
        awaitAnswer(client, RawClient.WRITE, block(1));
        own.stopOsd();
        client.call(EIO, 0, RawClient.WRITE, 0, BLOCK, block(2));
        own.continueOsd();
        awaitAnswer(client, RawClient.WRITE, block(3));
        awaitAnswer(client, RawClient.FLUSH);
        assertThat(client.read(0, BLOCK)).isEqualTo(block(3));
        Eventually.isTrue(
            "it is logged", () -> serve.said("the cluster has not answered in time (ETIMEDOUT)"));
        assertThat(own.run("rbd", "info", "disk")).contains("object-map").doesNotContain("invalid");
      }
    }
  }

  /** Asks until the cluster answers in time, which it may fail to do while the machine is busy. */
  private static void awaitAnswer(RawClient client, int type, byte... data) throws Exception {
    Eventually.isTrue(
        "the cluster answers in time",
        () -> {
          try {
            return client.errorOf(0, type, 0, data.length, data) == 0;
          } catch (IOException failure) {
            throw new UncheckedIOException(failure);
          }
        });
  }

  @Test
  void aClusterThatHangsDoesNotStopTheImagesOfAnother() throws Exception {
    image("here");
    try (CephCluster own = CephCluster.start()) {
      own.run("rbd", "create", "there", "--size", "32M");
      String export = "--export=%s={rbd:rbd/%s --ceph-conf=%s --ceph-timeout=12s}";
      String[] options = {
        export.formatted("a", "here", cluster.conf()), export.formatted("b", "there", own.conf())
      };
      String socket = directory.resolve("socket").toString();
      try (ServeProcess serve = ServeProcess.ready("-U", socket, options[0], options[1])) {
        RawClient here = serve.client("a").write(0, block(1));
        RawClient there = serve.client("b").write(0, block(2));
        own.stopOsd();
        there.request(0, RawClient.WRITE, 1, 0, BLOCK, block(3));
        here.write(BLOCK, block(4)).flush();
        assertThat(here.read(0, BLOCK)).isEqualTo(block(1));
        try (RawClient later = serve.client("a")) {
          assertThat(later.read(BLOCK, BLOCK)).isEqualTo(block(4));
        }
        there.expectReply(EIO, 1);
        own.continueOsd();
        awaitAnswer(there, RawClient.WRITE, block(5));
        assertThat(there.read(0, BLOCK)).isEqualTo(block(5));
      }
    }
  }

  @Test
  void bytesAreAnywhere() throws Exception {
    try (ServeProcess serve = serve(image("bytes"))) {
      RawClient client = serve.client();
      byte[] data = Bytes.random(3, 100_001);
      client.write((4 << 20) - 50_001, data);
      assertThat(client.read((4 << 20) - 50_001, data.length)).isEqualTo(data);
      serve.stop();
    }
  }
}
