package nbd.check;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.TimeUnit;
import nbd.client.ClientSettings;
import nbd.client.NbdUri;
import nbd.threads.VirtualThreads;
import org.jspecify.annotations.Nullable;
import org.openjdk.jmh.annotations.AuxCounters;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * The requests a second that {@code check} makes and judges, over a Unix socket to a server in a
 * process of its own that shares the processors. The server keeps data, since a read that returns
 * none ends a history.
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.Throughput)
@OutputTimeUnit(TimeUnit.SECONDS)
@Warmup(iterations = 3, time = 5)
@Measurement(iterations = 3, time = 10)
@Fork(
    value = 1,
    jvmArgsAppend = {
      "--enable-native-access=ALL-UNNAMED",
      "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
      "-Dtinylog.level=info"
    })
public class DriveRate {
  private static final Duration STARTING = Duration.ofSeconds(10);

  /** The number of connections at a time. */
  @Param("4")
  public int connections;

  private @Nullable Path directory;
  private @Nullable Process server;
  private @Nullable Target target;
  private long seed;

  /** The requests of an iteration. */
  @State(Scope.Thread)
  @AuxCounters(AuxCounters.Type.OPERATIONS)
  public static class Count {
    /** The requests that were answered. */
    public long requests;
  }

  /** Starts the server, and has virtual threads as the command has them. */
  @Setup
  public void start() throws IOException {
    VirtualThreads.configure();
    directory = Files.createTempDirectory("nbd-drive-rate-");
    Path socket = directory.resolve("socket");
    server =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "--enable-native-access=ALL-UNNAMED",
                "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
                "-cp",
                System.getProperty("java.class.path"),
                "nbd.cli.Main",
                "serve",
                "-U",
                socket.toString(),
                "memory:64M")
            .redirectOutput(ProcessBuilder.Redirect.DISCARD)
            .start();
    long giveUp = System.nanoTime() + STARTING.toNanos();
    while (target == null) {
      try {
        target = Target.open(NbdUri.unix(socket, ""), ClientSettings.DEFAULT);
      } catch (IOException notYet) {
        if (System.nanoTime() - giveUp > 0) {
          throw notYet;
        }
        Thread.onSpinWait();
      }
    }
  }

  /** Drives a history of a second. */
  @Benchmark
  public void drive(Count count) throws IOException {
    Driver driver = new Driver(Objects.requireNonNull(target), connections, seed++);
    driver.drive(Duration.ofSeconds(1));
    if (driver.violation().isPresent()) {
      throw new AssertionError(driver.violation().get());
    }
    count.requests += driver.counts().requests();
  }

  /** Ends the server. */
  @TearDown
  public void stop() throws IOException {
    Objects.requireNonNull(server).destroyForcibly().onExit().join();
    Path made = Objects.requireNonNull(directory);
    Files.deleteIfExists(made.resolve("socket"));
    Files.delete(made);
  }
}
