package nbd.fuzz;

import com.code_intelligence.jazzer.junit.FuzzTest;
import java.io.IOException;

/**
 * Each request gets the one answer that the protocol demands, reads return the data of writes, and
 * the storage has that data in the end.
 */
final class TransmissionFuzzTest {
  @FuzzTest
  void everyRequestGetsItsSimpleReply(byte[] data) throws IOException, InterruptedException {
    Choices choices = new Choices(data);
    Setup setup = Setup.of(choices);
    new Session(setup).enter(false, false, false).requests(choices).run();
  }

  @FuzzTest
  void everyRequestGetsItsChunks(byte[] data) throws IOException, InterruptedException {
    Choices choices = new Choices(data);
    Setup setup = Setup.of(choices);
    boolean allocation = choices.u8() < 0xc0;
    new Session(setup).enter(true, false, allocation).requests(choices).run();
  }

  @FuzzTest
  void everyRequestGetsItsExtendedChunks(byte[] data) throws IOException, InterruptedException {
    Choices choices = new Choices(data);
    Setup setup = Setup.of(choices);
    boolean allocation = choices.u8() < 0xc0;
    new Session(setup).enter(false, true, allocation).requests(choices).run();
  }
}
