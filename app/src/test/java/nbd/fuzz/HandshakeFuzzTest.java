package nbd.fuzz;

import com.code_intelligence.jazzer.junit.FuzzTest;
import java.io.IOException;

/** Any handshake, which the server has to answer as the protocol demands. */
final class HandshakeFuzzTest {
  /** The client sends any bytes. */
  @FuzzTest
  void anyBytesAreAnsweredInOrder(byte[] data) throws IOException, InterruptedException {
    Choices choices = new Choices(data);
    Setup setup = Setup.of(choices);
    new Session(setup).raw(choices.rest()).run();
  }

  /** The client sends well-framed options, and requests if they open an export. */
  @FuzzTest
  void optionsInAnyOrderAreAnsweredInOrder(byte[] data) throws IOException, InterruptedException {
    Choices choices = new Choices(data);
    Setup setup = Setup.of(choices);
    int flags = choices.u8();
    new Session(setup).introduce(flags < 250 ? 3 - flags % 4 : flags).options(choices).run();
  }

  /** The client asks for metadata contexts. */
  @FuzzTest
  void anyQueriesForContextsAreAnsweredOrRefused(byte[] data)
      throws IOException, InterruptedException {
    Choices choices = new Choices(data);
    Setup setup = Setup.of(choices);
    Session session = new Session(setup).introduce(3);
    session.raw(nbd.testing.RawClient.optionBytes(choices.of(8, 11)));
    while (choices.hasMore()) {
      int what = choices.u8();
      byte[] queries =
          what < 0x40 ? choices.bytes(4 * what) : Session.contexts(choices, (what & 1) != 0);
      session.pause().raw(nbd.testing.RawClient.optionBytes(choices.of(10, 9), queries));
    }
    session.pause().raw(nbd.testing.RawClient.optionBytes(2)).run();
  }

  /** Garbage after STARTTLS ends the connection, but not the server. */
  @FuzzTest
  void anyBytesInsteadOfTlsEndTheConnection(byte[] data) throws IOException, InterruptedException {
    Choices choices = new Choices(data);
    int most = choices.of(Integer.MAX_VALUE, 1, 5, 100);
    Setup setup = new Setup(4096, 1, false, Setup.Storage.NEAR, 0, most, false, false, true, false);
    Session session = new Session(setup).introduce(3);
    session.raw(nbd.testing.RawClient.optionBytes(5)).pause();
    while (choices.hasMore()) {
      session.raw(choices.bytes(choices.u16())).pause();
    }
    session.run();
  }
}
