package nbd.file;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import nbd.storage.ListedExport;
import nbd.testing.Eventually;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The list of a directory while the storage of some files hangs. */
@Timeout(300)
final class ListingTest {
  private static final List<Path> ENTRIES =
      List.of(
          Path.of("a"),
          Path.of("slow 1"),
          Path.of("no"),
          Path.of("b"),
          Path.of("slow 2"),
          Path.of("slow 3"),
          Path.of("c"));
  private static final List<ListedExport> QUICK =
      List.of(new ListedExport("a", ""), new ListedExport("b", ""), new ListedExport("c", ""));

  private final ExecutorService threads = Executors.newCachedThreadPool();
  private final CountDownLatch go = new CountDownLatch(1);
  private final AtomicInteger hanging = new AtomicInteger();
  private final Listing listing = new Listing(this::look, threads, Duration.ofMillis(50));

  @AfterEach
  void end() {
    go.countDown();
    threads.shutdown();
  }

  private Optional<ListedExport> look(Path entry) {
    if (entry.toString().startsWith("slow")) {
      hanging.incrementAndGet();
      Eventually.await(go);
      hanging.decrementAndGet();
    }
    return Optional.of(new ListedExport(entry.toString(), ""))
        .filter(listed -> !listed.name().equals("no"));
  }

  @Test
  void whatDoesNotAnswerIsLeftOut() throws Exception {
    awaitQuick(listing, ENTRIES);
    assertThat(listing.served(ENTRIES)).isSubsetOf(QUICK);
  }

  /** Waits until those are listed that answer: on a busy machine one of them may be late, too. */
  private static void awaitQuick(Listing looking, List<Path> entries) throws Exception {
    Eventually.isTrue(
        "all that answer are listed",
        () -> {
          try {
            return looking.served(entries).equals(QUICK);
          } catch (IOException impossible) {
            throw new AssertionError(impossible);
          }
        });
  }

  @Test
  void eachFileThatHangsKeepsOneThread() throws Exception {
    for (int i = 0; i < 10; i++) {
      awaitQuick(listing, ENTRIES);
    }
    Eventually.isTrue("each is looked at", () -> hanging.get() >= 3);
    assertThat(hanging).hasValue(3);
  }

  @Test
  void whatAnswersAgainIsListedAgain() throws Exception {
    awaitQuick(listing, ENTRIES);
    go.countDown();
    Eventually.isTrue(
        "all are listed",
        () -> {
          try {
            return listing.served(ENTRIES).size() == 6;
          } catch (IOException impossible) {
            throw new AssertionError(impossible);
          }
        });
  }

  @Test
  void whatCouldNotBeLookedAtForLackOfMemoryIsListedTheNextTime() throws Exception {
    AtomicInteger looks = new AtomicInteger();
    Listing failing =
        new Listing(
            entry -> {
              if (looks.getAndIncrement() == 0) {
                throw new OutOfMemoryError("of the test");
              }
              return look(entry);
            },
            threads,
            Duration.ofMillis(50));
    List<Path> entries = List.of(Path.of("a"), Path.of("b"), Path.of("c"));
    failing.served(entries);
    awaitQuick(failing, entries);
  }

  @Test
  void anEmptyDirectoryHasNothing() throws IOException {
    assertThat(listing.served(List.of())).isEmpty();
  }
}
