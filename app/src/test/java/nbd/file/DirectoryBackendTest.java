package nbd.file;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.posix.Errno;
import nbd.posix.PathDescriptor;
import nbd.posix.PosixException;
import nbd.protocol.CommandFlags;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReplyType;
import nbd.storage.Capability;
import nbd.storage.Handle;
import nbd.storage.ListedExport;
import nbd.testing.Eventually;
import nbd.testing.Running;
import nbd.testing.SlowFiles;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** A directory whose files are exports. */
@Timeout(300)
final class DirectoryBackendTest {
  @TempDir private Path above;
  private Path directory;
  private DirectoryBackend backend;

  @BeforeEach
  void create() throws IOException {
    directory = Files.createDirectory(above.resolve("images"));
    Files.write(above.resolve("secret"), new byte[] {66});
    Files.write(directory.resolve("b.img"), new byte[] {2, 2});
    Files.write(directory.resolve("a.img"), new byte[] {1});
    backend = DirectoryBackend.open(directory, FileSettings.DEFAULT);
  }

  @AfterEach
  void close() throws IOException {
    backend.close();
  }

  private List<String> listed() throws IOException {
    return backend.exports().orElseThrow().stream().map(ListedExport::name).toList();
  }

  private static byte first(Handle handle) throws IOException {
    return Disks.read(handle, 0, 1)[0];
  }

  private void assertUnknown(String name) {
    assertThatThrownBy(() -> backend.open(name, false).close())
        .as("\"%s\"", name)
        .isInstanceOfSatisfying(
            OptionException.class,
            refused -> assertThat(refused.type()).isEqualTo(OptionReplyType.ERR_UNKNOWN));
  }

  @Test
  void regularFilesAreListedInOrderAndNewOnesAppear() throws IOException {
    Files.createDirectory(directory.resolve("sub"));
    assertThat(listed()).containsExactly("a.img", "b.img");
    Files.write(directory.resolve("aa"), new byte[7]);
    assertThat(listed()).containsExactly("a.img", "aa", "b.img");
    try (Handle handle = backend.open("aa", false)) {
      assertThat(handle.size()).isEqualTo(7);
    }
    Files.delete(directory.resolve("aa"));
    assertThat(listed()).containsExactly("a.img", "b.img");
    assertUnknown("aa");
  }

  @Test
  void eachNameIsItsFile() throws IOException {
    try (Handle a = backend.open("a.img", false);
        Handle b = backend.open("b.img", true)) {
      assertThat(first(a)).isEqualTo((byte) 1);
      assertThat(first(b)).isEqualTo((byte) 2);
      assertThat(b.capabilities().has(Capability.WRITE)).isFalse();
      assertThat(a.capabilities().has(Capability.MULTI_CONN)).isTrue();
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        ".",
        "..",
        "/",
        "../secret",
        "./a.img",
        "a.img/",
        "sub/../a.img",
        "/etc/passwd",
        "a.img\0",
        "a.img\0.txt",
        "no",
        "A.IMG"
      })
  void noOtherNameLeadsAnywhere(String name) throws IOException {
    Files.createDirectory(directory.resolve("sub"));
    assertUnknown(name);
  }

  @Test
  void aNameThatIsTooLongIsNotThere() {
    assertUnknown("x".repeat(4096));
    assertUnknown("é".repeat(200));
  }

  @Test
  void linksThatLeadOutAreNotThereAndThoseThatStayAreFiles() throws IOException {
    Files.createSymbolicLink(directory.resolve("out"), above.resolve("secret"));
    Files.createSymbolicLink(directory.resolve("up"), Path.of("../secret"));
    Files.createSymbolicLink(directory.resolve("up-and-down"), Path.of("../images/a.img"));
    Files.createSymbolicLink(directory.resolve("self"), Path.of("self"));
    Files.createSymbolicLink(directory.resolve("broken"), Path.of("nothing"));
    Files.createSymbolicLink(directory.resolve("here"), Path.of("."));
    Files.createSymbolicLink(directory.resolve("in"), Path.of("a.img"));
    // Another directory, whose name begins with the same letters.
    Files.write(Files.createDirectory(above.resolve("images-old")).resolve("x"), new byte[] {66});
    Files.createSymbolicLink(directory.resolve("beside"), Path.of("../images-old/x"));
    for (String name : List.of("out", "up", "self", "broken", "here", "beside")) {
      assertUnknown(name);
    }
    assertThat(listed()).containsExactly("a.img", "b.img", "in", "up-and-down");
    try (Handle in = backend.open("in", false);
        Handle around = backend.open("up-and-down", false)) {
      assertThat(first(in)).isEqualTo((byte) 1);
      assertThat(first(around)).isEqualTo((byte) 1);
    }
  }

  @Test
  void aDirectoryThatIsALinkItselfIsServed() throws IOException {
    Path link = Files.createSymbolicLink(above.resolve("link"), directory);
    try (DirectoryBackend linked = DirectoryBackend.open(link, FileSettings.DEFAULT);
        Handle handle = linked.open("a.img", false)) {
      assertThat(first(handle)).isEqualTo((byte) 1);
      assertThat(linked.exports().orElseThrow()).hasSize(2);
    }
  }

  @Test
  void pipesSocketsDevicesAndDirectoriesAreRefusedWithoutWaiting() throws Exception {
    assumeTrue(
        new ProcessBuilder("mkfifo", directory.resolve("fifo").toString()).start().waitFor() == 0,
        "mkfifo does not work");
    Files.createSymbolicLink(directory.resolve("null"), Path.of("/dev/null"));
    Files.createDirectory(directory.resolve("sub"));
    try (ServerSocketChannel socket = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      socket.bind(UnixDomainSocketAddress.of(directory.resolve("socket")));
      for (String name : List.of("fifo", "null", "sub", "socket")) {
        assertUnknown(name);
      }
      assertThat(listed()).containsExactly("a.img", "b.img");
    }
  }

  /** An attacker exchanges a file for a link that leads out, again and again. */
  @Test
  void whoExchangesFilesForLinksGetsNobodyOut() throws IOException {
    assumeTrue(PathDescriptor.of(directory).isPresent(), "needs Linux with /proc");
    Path swapped = directory.resolve("swapped");
    Files.write(swapped, new byte[] {1});
    Path file = Files.write(above.resolve("file"), new byte[] {1});
    AtomicBoolean stop = new AtomicBoolean();
    Running attacker =
        Running.start(
            () -> {
              while (!stop.get()) {
                Path link = above.resolve("next-link");
                Files.createSymbolicLink(link, above.resolve("secret"));
                Files.move(link, swapped, StandardCopyOption.ATOMIC_MOVE);
                Files.createLink(above.resolve("next-file"), file);
                Files.move(above.resolve("next-file"), swapped, StandardCopyOption.ATOMIC_MOVE);
              }
            });
    int opened = 0;
    int refused = 0;
    while (opened < 200 || refused < 200) {
      try (Handle handle = backend.open("swapped", true)) {
        assertThat(first(handle)).isEqualTo((byte) 1);
        opened++;
      } catch (OptionException out) {
        refused++;
      }
    }
    stop.set(true);
    attacker.join();
  }

  @Test
  void aDirectoryThatWasMovedIsServedWhereItIs() throws IOException {
    assumeTrue(PathDescriptor.of(directory).isPresent(), "needs Linux with /proc");
    Files.move(directory, above.resolve("moved"));
    Files.createDirectory(directory);
    assertThat(listed()).containsExactly("a.img", "b.img");
    backend.open("a.img", false).close();
  }

  @Test
  void namesOfOneFileShareItsOpening() throws IOException {
    Files.createLink(directory.resolve("hard"), directory.resolve("a.img"));
    Files.createSymbolicLink(directory.resolve("soft"), Path.of("a.img"));
    // Two openings would lock each other out.
    try (Handle one = backend.open("a.img", false);
        Handle hard = backend.open("hard", false);
        Handle soft = backend.open("soft", false)) {
      one.write(ByteBuffer.allocateDirect(1).put(0, (byte) 9), 0, CommandFlags.NONE);
      assertThat(first(hard)).isEqualTo((byte) 9);
      assertThat(first(soft)).isEqualTo((byte) 9);
    }
  }

  @Test
  void whatReplacedAFileIsToldFromIt() throws IOException {
    try (Handle replaced = backend.open("a.img", false)) {
      Path other = Files.write(above.resolve("other"), new byte[] {9});
      Files.move(other, directory.resolve("a.img"), StandardCopyOption.REPLACE_EXISTING);
      try (Handle first = backend.open("a.img", false);
          Handle second = backend.open("a.img", false)) {
        assertThat(first(first)).isEqualTo((byte) 9);
        assertThat(first.facts().identity()).isEqualTo(second.facts().identity());
        assertThat(first.facts().identity()).isNotEqualTo(replaced.facts().identity());
      }
    }
  }

  @Test
  void aFileIsLockedWhileItIsUsedAndNoLonger() throws IOException {
    assumeTrue(PathDescriptor.of(directory).isPresent(), "needs Linux with /proc");
    Path file = directory.resolve("a.img");
    Handle one = backend.open("a.img", false);
    Handle two = backend.open("a.img", false);
    one.close();
    assertThatThrownBy(() -> FileBackend.open(file, FileSettings.DEFAULT))
        .hasMessageContainingAll("a.img is in use", "--force-share");
    FileBackend.open(file, FileSettings.DEFAULT.withoutLock()).close();
    two.close();
    FileBackend.open(file, FileSettings.DEFAULT).close();
  }

  @Test
  void afterALossTheFileIsNeverTakenForGoodAgain() throws IOException {
    SharedFiles files = new SharedFiles();
    FakeDisk disk =
        new FakeDisk(
            10,
            number -> {
              throw new PosixException("fdatasync", Errno.EIO, "x");
            });
    AtomicInteger openings = new AtomicInteger();
    SharedFiles.Opener opener =
        () -> {
          openings.incrementAndGet();
          return disk.served("x");
        };
    Handle first = files.open("key", false, opener);
    assertThatThrownBy(first::flush).hasMessageContaining("EIO");
    assertThatThrownBy(first::close).hasMessageContaining("may be lost");
    Handle later = files.open("key", false, opener);
    assertThatThrownBy(later::flush).hasMessageContaining("may be lost");
    assertThatThrownBy(later::close).hasMessageContaining("may be lost");
    assertThat(openings).hasValue(1);
    assertThatThrownBy(files::close).hasMessageContaining("may be lost");
  }

  /** While one file is opened or closed, other clients wait only if they want the same one. */
  @Test
  void aSlowFileHoldsUpNobodyElse() throws IOException {
    SharedFiles files = new SharedFiles();
    CountDownLatch opening = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    CountDownLatch flushing = new CountDownLatch(1);
    CountDownLatch goOn = new CountDownLatch(1);
    FakeDisk slow =
        new FakeDisk(
            10,
            number -> {
              flushing.countDown();
              Eventually.await(goOn);
            });
    AtomicInteger openings = new AtomicInteger();
    SharedFiles.Opener openSlowly =
        () -> {
          openings.incrementAndGet();
          opening.countDown();
          Eventually.await(go);
          return slow.served("slow");
        };
    SharedFiles.Opener openQuickly = () -> new FakeDisk(10, number -> {}).served("quick");
    Queue<Handle> opened = new ConcurrentLinkedQueue<>();
    Running.Call openSlow = () -> opened.add(files.open("slow", false, openSlowly));
    Running first = Running.start(openSlow);
    Eventually.await(opening);
    Running second = Running.start(openSlow);
    second.awaitParked();
    files.open("quick", false, openQuickly).close();
    go.countDown();
    first.join();
    opened.remove().close();
    second.join();
    Running ending = Running.start(opened.remove()::close);
    Eventually.await(flushing);
    // It is being closed: a client that comes now waits, and opens it anew.
    Running third = Running.start(openSlow);
    third.awaitParked();
    files.open("quick", false, openQuickly).close();
    assertThat(openings).hasValue(1);
    goOn.countDown();
    ending.join();
    third.join();
    opened.remove().close();
    assertThat(openings).hasValue(2);
    files.close();
  }

  @Test
  void aFileThatCannotBeOpenedLeavesNothingBehind() throws IOException {
    SharedFiles files = new SharedFiles();
    SharedFiles.Opener failing =
        () -> {
          throw new IOException("not now");
        };
    for (int i = 0; i < 2; i++) {
      assertThatThrownBy(() -> files.open("key", false, failing)).hasMessage("not now");
    }
    files.open("key", false, () -> new FakeDisk(10, number -> {}).served("x")).close();
    files.close();
  }

  @Test
  void whatIsNoDirectoryIsSaidSo() {
    assertThatThrownBy(
            () -> DirectoryBackend.open(directory.resolve("a.img"), FileSettings.DEFAULT))
        .hasMessageContainingAll("a.img", "is not a directory");
    assertThatThrownBy(() -> DirectoryBackend.open(directory.resolve("x"), FileSettings.DEFAULT))
        .hasMessageContaining("does not exist");
  }

  /** The file hangs when its name is resolved, when its kind is asked for, or when it is opened. */
  @ParameterizedTest
  @ValueSource(strings = {"lookup", "getattr", "open"})
  void whileOneFileHangsTheOthersAreListedAndOpened(String operation) throws Exception {
    Path mount = Files.createDirectory(directory.resolve("mount"));
    try (SlowFiles slow = SlowFiles.mount(mount, "slow:4096", "other:4096")) {
      Files.createSymbolicLink(directory.resolve("slow"), slow.file("slow"));
      Files.createSymbolicLink(directory.resolve("other"), slow.file("other"));
      assertThat(listed()).containsExactly("a.img", "b.img", "other", "slow");
      slow.hold(operation);
      List<Running> opens = new ArrayList<>();
      for (int i = 0; i < 70; i++) {
        opens.add(Running.start(() -> backend.open("slow", false).close()));
      }
      slow.awaitHeld(1);
      for (int i = 0; i < 10; i++) {
        assertThat(listed()).contains("a.img", "b.img", "other");
        for (String name : List.of("a.img", "other")) {
          Running.start(() -> backend.open(name, false).close()).join();
        }
      }
      assertThat(opens).noneMatch(Running::isDone);
      slow.release();
      for (Running open : opens) {
        open.join();
      }
      Eventually.isTrue("it is listed again", () -> listedByNow().contains("slow"));
    }
  }

  private List<String> listedByNow() {
    try {
      return listed();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }
}
