package nbd.control;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.time.Duration;

/** A client of a control socket, for one request. Used by one thread. */
public final class ControlClient implements AutoCloseable {
  /** The time that a server has to greet: it may be busy with as many clients as it takes. */
  private static final Duration PATIENCE = Duration.ofSeconds(30);

  private static final int LONGEST_STATUS = 4096;
  private static final int BUFFER = 8192;

  private final SocketChannel channel;

  private ControlClient(SocketChannel channel) {
    this.channel = channel;
  }

  /**
   * Connects, and takes the server's greeting.
   *
   * @throws IOException if no server of this version answers; the message is for the user
   */
  public static ControlClient connect(Path socket) throws IOException {
    SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
    try {
      try (Deadline _ = Deadline.of(channel, PATIENCE)) {
        channel.connect(UnixDomainSocketAddress.of(socket));
        String greeting = LineInput.read(channel, LONGEST_STATUS);
        if (!greeting.equals(ControlServer.GREETING)) {
          throw new IOException("it is no control socket of this version");
        }
      }
      return new ControlClient(channel);
    } catch (EOFException refused) {
      channel.close();
      throw new IOException("the server ended the connection; is it another user's?", refused);
    } catch (ClosedChannelException late) {
      throw new IOException("the server does not answer", late);
    } catch (IOException | RuntimeException | Error failure) {
      channel.close();
      throw failure;
    }
  }

  /**
   * Sends a request, and takes the line that says whether it succeeded.
   *
   * @param request one line, without its end
   * @throws IOException if it was refused, with the server's message; or if the server is gone
   */
  public void request(String request) throws IOException {
    ByteBuffer line = UTF_8.encode(request + "\n");
    while (line.hasRemaining()) {
      channel.write(line);
    }
    String status;
    try {
      status = LineInput.read(channel, LONGEST_STATUS);
    } catch (EOFException gone) {
      throw new IOException("the server ended without an answer", gone);
    }
    if (status.startsWith(Answer.REFUSED)) {
      throw new IOException(status.substring(Answer.REFUSED.length()));
    }
    if (!status.equals(Answer.OK)) {
      throw new IOException("the server's answer is not understood");
    }
  }

  /** Takes the lines of the answer, up to its end. */
  public String lines() throws IOException {
    ByteArrayOutputStream lines = new ByteArrayOutputStream();
    ByteBuffer buffer = ByteBuffer.allocate(BUFFER);
    while (channel.read(buffer.clear()) >= 0) {
      lines.write(buffer.array(), 0, buffer.position());
    }
    return lines.toString(UTF_8);
  }

  /** Returns the connection, for what a request needs beyond lines. */
  public SocketChannel channel() {
    return channel;
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
