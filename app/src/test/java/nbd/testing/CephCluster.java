package nbd.testing;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * A Ceph cluster of one monitor and one OSD on 127.0.0.1, with the pool {@code rbd}, in a temporary
 * directory. Root is not needed, nor a manager daemon. Data that was flushed survives when the
 * daemons are killed. Whatever becomes of a test, the daemons end with the JVM, unless SIGKILL ends
 * it.
 *
 * <p>The OSD's leases on its data, which are the longer the longer its grace is, outlast each stop
 * ({@link #stopOsd}): by an error of Ceph, data whose lease has run out may wait for ever
 * (github.com/ceph/ceph-container/issues/1682).
 *
 * <p>Where Ceph's Debian packages ceph-mon, ceph-osd and ceph-common are missing, the test is
 * skipped with the reason; with NBD_REQUIRE_TOOLS=1 it fails. {@code rbd} of ceph-common cannot be
 * installed without librbd.
 */
public final class CephCluster implements AutoCloseable {
  private static final long HANG_SECONDS = 180;
  private static final Set<CephCluster> OPEN = ConcurrentHashMap.newKeySet();
  private static @Nullable CephCluster shared;

  static {
    Runtime.getRuntime()
        .addShutdownHook(new Thread(() -> OPEN.forEach(CephCluster::closeUnchecked)));
  }

  private final Path directory;
  private @Nullable Process monitor;
  private @Nullable Process osd;
  private boolean closed;

  private CephCluster() throws IOException {
    // Ceph's commands leave their own files here too.
    directory = Files.createTempDirectory("ceph-");
  }

  /** Starts a cluster for one test, which takes some seconds. */
  public static CephCluster start() throws IOException {
    Missing.unlessInstalled(
        "ceph-mon", "ceph-osd", "monmaptool", "ceph-authtool", "ceph", "rados", "rbd");
    CephCluster cluster = new CephCluster();
    OPEN.add(cluster);
    try {
      cluster.create();
    } catch (IOException | RuntimeException | Error failure) {
      cluster.close();
      throw failure;
    }
    return cluster;
  }

  /**
   * Returns the cluster that tests of this JVM share, which the first call starts; it ends with the
   * JVM. Tests that stop or kill a daemon need a cluster of their own.
   */
  public static synchronized CephCluster shared() throws IOException {
    if (shared == null) {
      shared = start();
    }
    return shared;
  }

  private void create() throws IOException {
    String cluster = UUID.randomUUID().toString();
    String address = "v2:127.0.0.1:" + FreePort.find();
    Path keys = directory.resolve("keyring");
    Files.writeString(conf(), configuration(cluster, address, keys));
    key(keys, "mon.", "mon", "allow *");
    key(keys, "client.admin", "mon", "allow *", "osd", "allow *");
    key(keys, "osd.0", "mon", "allow profile osd", "osd", "allow *");
    Path monitors = directory.resolve("monitors");
    run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", address, monitors.toString());
    run("ceph-mon", "-i", "a", "--mkfs", "--monmap=" + monitors, "--keyring=" + keys);
    startMonitor();
    Files.createDirectory(directory.resolve("osd"));
    String disk = UUID.randomUUID().toString();
    run("ceph", "osd", "new", disk, "0");
    run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk);
    osd = daemon("ceph-osd", "0");
    run("ceph", "osd", "pool", "create", "rbd", "8");
    run("ceph", "osd", "pool", "application", "enable", "rbd", "rbd");
    awaitWrite();
  }

  private String configuration(String cluster, String address, Path keys) {
    return """
    [global]
    fsid = %1$s
    mon host = %2$s
    public addr = 127.0.0.1
    cluster addr = 127.0.0.1
    keyring = %3$s
    run dir = %4$s
    crash dir = %4$s
    admin socket =
    log file =
    mon cluster log file =
    mon data = %4$s/mon
    mon allow pool size one = true
    mon allow pool delete = true
    mon data avail crit = 1
    auth allow insecure global id reclaim = false
    osd data = %4$s/osd
    osd objectstore = bluestore
    osd memory target = 1073741824
    osd heartbeat grace = 600
    osd crush chooseleaf type = 0
    osd pool default size = 1
    osd pool default min size = 1
    osd pool default pg autoscale mode = off
    bluestore block size = 8589934592
    """
        .formatted(cluster, address, keys, directory);
  }

  private void key(Path keys, String name, String... capabilities) throws IOException {
    List<String> command = new ArrayList<>(List.of("ceph-authtool", "--gen-key", "-n", name));
    for (int i = 0; i < capabilities.length; i += 2) {
      command.addAll(List.of("--cap", capabilities[i], capabilities[i + 1]));
    }
    if (!Files.exists(keys)) {
      command.add("--create-keyring");
    }
    command.add(keys.toString());
    run(command.toArray(String[]::new));
  }

  /** Returns the configuration file, which names the monitor and the key of client.admin. */
  public Path conf() {
    return directory.resolve("ceph.conf");
  }

  /**
   * Runs a command such as {@code rbd create disk --size 64M} with CEPH_CONF set, and returns its
   * standard output. The exception of a command that fails, or hangs, has its errors.
   */
  public String run(String... command) throws IOException {
    Path out = Files.createTempFile(directory, "run-", ".out");
    Path err = Files.createTempFile(directory, "run-", ".err");
    try {
      Process process = launch(out, err, command);
      boolean ended = waitFor(process);
      if (!ended || process.exitValue() != 0) {
        process.destroyForcibly();
        throw new IOException(
            "%s %s: %s%s%s"
                .formatted(
                    String.join(" ", command),
                    ended ? "failed" : "hangs",
                    text(err),
                    saidBy("ceph-mon"),
                    saidBy("ceph-osd")));
      }
      return text(out);
    } finally {
      Files.deleteIfExists(out);
      Files.deleteIfExists(err);
    }
  }

  private Process launch(Path out, Path err, String... command) throws IOException {
    String[] found = command.clone();
    found[0] = Missing.find(command[0]).orElseThrow().toString();
    ProcessBuilder builder =
        new ProcessBuilder(found)
            .redirectInput(new File("/dev/null"))
            .redirectOutput(out.toFile())
            .redirectError(err.toFile());
    builder.environment().put("CEPH_CONF", conf().toString());
    builder.environment().put("PATH", Missing.path());
    return builder.start();
  }

  private static boolean waitFor(Process process) throws IOException {
    try {
      return process.waitFor(HANG_SECONDS, TimeUnit.SECONDS);
    } catch (InterruptedException interrupted) {
      process.destroyForcibly();
      throw new IOException(interrupted);
    }
  }

  private Process daemon(String program, String id) throws IOException {
    Path said = directory.resolve(program + ".log");
    return launch(said, said, program, "-f", "-i", id, "--conf", conf().toString());
  }

  private String saidBy(String program) throws IOException {
    Path log = directory.resolve(program + ".log");
    return Files.exists(log) ? "\n%s: %s".formatted(program, text(log)) : "";
  }

  private static String text(Path file) throws IOException {
    return new String(Files.readAllBytes(file), UTF_8);
  }

  /** Waits until the pool takes a write. */
  private void awaitWrite() throws IOException {
    // By default rados looks for a new map of the OSDs 10 s after a request that nobody answers.
    run(
        "rados",
        "--objecter-timeout=1",
        "--objecter-tick-interval=0.2",
        "-p",
        "rbd",
        "create",
        "probe");
    run("rados", "-p", "rbd", "rm", "probe");
  }

  /** Stops the OSD by SIGSTOP: requests hang, and connections stay. */
  public void stopOsd() throws IOException {
    signal("STOP");
  }

  /** Lets the OSD go on after {@link #stopOsd}. */
  public void continueOsd() throws IOException {
    signal("CONT");
  }

  private void signal(String name) throws IOException {
    run("sh", "-c", "kill -%s %d".formatted(name, osd.pid()));
  }

  /** Kills the OSD by SIGKILL. */
  public void killOsd() throws IOException {
    kill(osd);
  }

  /** Starts the OSD again on its data, and waits until the pool takes a write. */
  public void startOsd() throws IOException {
    osd = daemon("ceph-osd", "0");
    awaitWrite();
  }

  /** Kills the monitor by SIGKILL. */
  public void killMonitor() throws IOException {
    kill(monitor);
  }

  /** Starts the monitor, or starts it again on its data. Ceph's commands wait until it answers. */
  public void startMonitor() throws IOException {
    monitor = daemon("ceph-mon", "a");
  }

  private static void kill(@Nullable Process daemon) throws IOException {
    if (daemon != null && !waitFor(daemon.destroyForcibly())) {
      throw new IOException("process %d does not end".formatted(daemon.pid()));
    }
  }

  /** Kills the daemons, and removes all data. */
  @Override
  public synchronized void close() throws IOException {
    if (closed) {
      return;
    }
    closed = true;
    OPEN.remove(this);
    kill(osd);
    kill(monitor);
    try (Stream<Path> files = Files.walk(directory)) {
      for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
        Files.deleteIfExists(file);
      }
    }
  }

  private void closeUnchecked() {
    try {
      close();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }
}
