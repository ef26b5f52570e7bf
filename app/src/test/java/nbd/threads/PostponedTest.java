package nbd.threads;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import nbd.testing.Running;
import org.junit.jupiter.api.Test;

final class PostponedTest {
  private final List<Integer> done = new ArrayList<>();

  @Test
  void aThreadThatPutsNothingOffWorksAtOnce() {
    Postponed.add(() -> done.add(1));
    assertThat(done).containsExactly(1);
  }

  @Test
  void workIsDoneOnceWhenTheThreadIsAboutToWait() {
    try (Postponed work = Postponed.begin()) {
      Postponed.add(() -> done.add(1));
      Postponed.add(() -> done.add(2));
      assertThat(done).isEmpty();
      work.run();
      work.run();
      assertThat(done).containsExactly(1, 2);
    }
  }

  @Test
  void workThatPutsOffOtherWorkIsFollowedByIt() {
    try (Postponed work = Postponed.begin()) {
      Postponed.add(() -> Postponed.add(() -> done.add(1)));
      work.run();
      assertThat(done).containsExactly(1);
    }
  }

  @Test
  void workIsDoneWhenTheThreadTakesNoMoreMessages() {
    try (Postponed _ = Postponed.begin()) {
      Postponed.add(() -> Postponed.add(() -> done.add(1)));
    }
    assertThat(done).containsExactly(1);
    Postponed.add(() -> done.add(2));
    assertThat(done).containsExactly(1, 2);
  }

  @Test
  void workFollowsWorkThatFails() {
    try (Postponed work = Postponed.begin()) {
      Postponed.add(
          () -> {
            throw new IllegalStateException("a mistake of this test");
          });
      Postponed.add(() -> done.add(1));
      work.run();
      assertThat(done).containsExactly(1);
    }
    assertThat(done).containsExactly(1);
  }

  @Test
  void otherThreadsDoNotPutTheirWorkOff() throws Exception {
    try (Postponed _ = Postponed.begin()) {
      Running.start(() -> Postponed.add(() -> done.add(1))).join();
      assertThat(done).containsExactly(1);
    }
  }
}
