package nbd.check;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import nbd.memory.MemoryBackend;
import nbd.protocol.Command;
import nbd.server.TestServer;
import nbd.testing.HookedBackend;
import org.junit.jupiter.api.Test;

class TargetTest {
  @Test
  void whatEarlierConnectionsLeftIsFlushedBeforeItIsOverwritten() throws Exception {
    List<Command> commands = new CopyOnWriteArrayList<>();
    HookedBackend storage =
        new HookedBackend(
            new MemoryBackend(1 << 20),
            (next, operation, patience, end) -> {
              commands.add(operation.command());
              return next.perform(operation, patience, end);
            });
    try (TestServer server = TestServer.of(storage)) {
      ScriptRunnerTest.target(server).overwrite(ByteBuffer.allocateDirect(512), 0);
    }
    assertThat(commands.stream().distinct().toList()).containsExactly(Command.FLUSH, Command.WRITE);
    assertThat(commands).last().isEqualTo(Command.FLUSH);
  }
}
