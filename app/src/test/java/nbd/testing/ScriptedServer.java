package nbd.testing;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.EOFException;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * A server that sends the bytes of a test, right or wrong: it plays one script for each connection,
 * in the order in which they are accepted. It knows the protocol's numbers by itself.
 */
public final class ScriptedServer implements AutoCloseable {
  public static final int ACK = 1;
  public static final int SERVER = 2;
  public static final int INFO = 3;
  public static final int META_CONTEXT = 4;
  public static final int ERR_UNSUP = 0x80000001;
  public static final int ERR_POLICY = 0x80000002;
  public static final int ERR_TLS_REQD = 0x80000005;
  public static final int ERR_UNKNOWN = 0x80000006;

  public static final int EXPORT_NAME = 1;
  public static final int ABORT = 2;
  public static final int LIST = 3;
  public static final int STARTTLS = 5;
  public static final int GO = 7;
  public static final int STRUCTURED_REPLY = 8;
  public static final int LIST_META_CONTEXT = 9;
  public static final int SET_META_CONTEXT = 10;
  public static final int EXTENDED_HEADERS = 11;

  /** The number that this server gives to base:allocation. */
  public static final int CONTEXT = 7;

  private static final long HANG_SECONDS = 120;
  private static final int SIMPLE = 0x67446698;
  private static final int CHUNK = 0x668e33ef;
  private static final int EXTENDED = 0x6e8a278c;

  private final Path directory;
  private final ServerSocketChannel listener;
  private final CompletableFuture<Void> end = new CompletableFuture<>();

  /** The server's side of one connection, which is closed when the script returns. */
  @FunctionalInterface
  public interface Script {
    /** Plays one connection. */
    void play(Peer client) throws IOException;
  }

  /** The form of replies that a server agrees on. */
  public enum Replies {
    SIMPLE,
    STRUCTURED,
    EXTENDED
  }

  /** An option that a client sent. */
  public record Sent(int option, ByteBuffer data) {}

  /** A request that a client sent. */
  public record Asked(
      int flags, int type, long cookie, long offset, long length, ByteBuffer payload) {}

  private ScriptedServer() throws IOException {
    directory = Files.createTempDirectory("nbd-scripted-");
    listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    listener.bind(UnixDomainSocketAddress.of(directory.resolve("socket")));
  }

  /** Starts a server that plays these scripts, one for each connection. */
  public static ScriptedServer of(Script... scripts) throws IOException {
    ScriptedServer server = new ScriptedServer();
    Thread.ofPlatform().daemon().name("scripted server").start(() -> server.play(scripts));
    return server;
  }

  /**
   * Starts a server that plays one script for every connection, also for several at a time. A
   * script that fails ends its connection.
   */
  public static ScriptedServer always(Script script) throws IOException {
    ScriptedServer server = new ScriptedServer();
    server.end.complete(null);
    Thread.ofPlatform().daemon().name("scripted server").start(() -> server.playAlways(script));
    return server;
  }

  private void playAlways(Script script) {
    try {
      while (true) {
        SocketChannel channel = listener.accept();
        Thread.ofVirtual()
            .start(
                () -> {
                  try (channel) {
                    script.play(new Peer(channel));
                  } catch (IOException gone) {
                    // The client has left, or the script has.
                  }
                });
      }
    } catch (IOException closed) {
      // The test is over.
    }
  }

  private void play(Script... scripts) {
    try {
      for (Script script : scripts) {
        try (SocketChannel channel = listener.accept()) {
          script.play(new Peer(channel));
        }
      }
      end.complete(null);
    } catch (IOException | RuntimeException | Error failure) {
      end.completeExceptionally(failure);
    }
  }

  /** Returns the URI of an export. */
  public String uri(String export) {
    return "nbd+unix:///" + export + "?socket=" + directory.resolve("socket");
  }

  /** Returns the URI of the export without a name. */
  public String uri() {
    return uri("");
  }

  /** Waits until all scripts have been played, and fails if one of them failed. */
  @Override
  public void close() throws IOException {
    try {
      end.get(HANG_SECONDS, TimeUnit.SECONDS);
    } catch (ExecutionException failure) {
      throw new AssertionError("the script failed", failure.getCause());
    } catch (TimeoutException | InterruptedException hang) {
      throw new AssertionError("the script hangs", hang);
    } finally {
      listener.close();
      Files.deleteIfExists(directory.resolve("socket"));
      Files.deleteIfExists(directory);
    }
  }

  /** One connection, as the server sees it. */
  public static final class Peer {
    private final SocketChannel channel;
    private Replies replies = Replies.SIMPLE;

    private Peer(SocketChannel channel) {
      this.channel = channel;
    }

    // Bytes.

    /** Sends bytes. */
    public Peer send(byte... bytes) throws IOException {
      ByteBuffer left = ByteBuffer.wrap(bytes);
      while (left.hasRemaining()) {
        channel.write(left);
      }
      return this;
    }

    /** Sends bytes. */
    public Peer send(Bytes bytes) throws IOException {
      return send(bytes.toArray());
    }

    /** Waits for so many bytes. */
    public ByteBuffer take(int count) throws IOException {
      ByteBuffer into = ByteBuffer.allocate(count);
      while (into.hasRemaining()) {
        if (channel.read(into) < 0) {
          throw new EOFException("the client ended after %d bytes".formatted(into.position()));
        }
      }
      return into.flip();
    }

    /** Waits until the client has ended, and ignores all that it sends before. */
    public void awaitEnd() {
      try {
        ByteBuffer any = ByteBuffer.allocate(4096);
        while (channel.read(any.clear()) >= 0) {
          // It may have sent more than the script takes.
        }
      } catch (IOException gone) {
        assertThat(gone).isNotNull();
      }
    }

    /** Waits for a latch, and sends nothing meanwhile. */
    public Peer await(CountDownLatch latch) {
      Eventually.await(latch);
      return this;
    }

    // The handshake.

    /** Greets with these flags, and returns the client's. */
    public int greet(int flags) throws IOException {
      send(Bytes.of().text("NBDMAGICIHAVEOPT").u16(flags));
      return take(4).getInt();
    }

    /** Waits for an option. */
    public Sent option() throws IOException {
      ByteBuffer header = take(16);
      assertThat(header.getLong()).as("an option's magic").isEqualTo(0x49484156454f5054L);
      int option = header.getInt();
      return new Sent(option, take(header.getInt()));
    }

    /** Waits for an option, checks that it is this one, and returns its data. */
    public byte[] expectOption(int option) throws IOException {
      Sent sent = option();
      assertThat(sent.option()).as("the option").isEqualTo(option);
      return sent.data().array();
    }

    /** Answers an option. */
    public Peer reply(int option, int type, byte... data) throws IOException {
      return send(
          Bytes.of().u64(0x0003e889045565a9L).u32(option).u32(type).u32(data.length).raw(data));
    }

    /** Answers an option by an error with a text. */
    public Peer refuse(int option, int type, String text) throws IOException {
      return reply(option, type, text.getBytes(UTF_8));
    }

    /** Notes the replies that a script has agreed on by itself. */
    public void agreed(Replies on) {
      replies = on;
    }

    /** Greets, and agrees on these replies and, unless they are simple, on base:allocation. */
    public Peer agree(Replies wanted) throws IOException {
      assertThat(greet(3)).isEqualTo(3);
      replies = wanted;
      expectOption(EXTENDED_HEADERS);
      reply(EXTENDED_HEADERS, wanted == Replies.EXTENDED ? ACK : ERR_UNSUP);
      if (wanted != Replies.EXTENDED) {
        expectOption(STRUCTURED_REPLY);
        reply(STRUCTURED_REPLY, wanted == Replies.STRUCTURED ? ACK : ERR_UNSUP);
      }
      if (wanted != Replies.SIMPLE) {
        expectOption(SET_META_CONTEXT);
        byte[] context = Bytes.of().u32(CONTEXT).text("base:allocation").toArray();
        reply(SET_META_CONTEXT, META_CONTEXT, context).reply(SET_META_CONTEXT, ACK);
      }
      return this;
    }

    /** Agrees, and answers GO with an export of this size and these flags. */
    public Peer open(Replies wanted, long size, int flags) throws IOException {
      agree(wanted).expectOption(GO);
      return reply(GO, INFO, export(size, flags)).reply(GO, ACK);
    }

    // Transmission.

    /** Waits for a request. */
    public Asked request() throws IOException {
      boolean extended = replies == Replies.EXTENDED;
      ByteBuffer header = take(extended ? 32 : 28);
      assertThat(header.getInt())
          .as("a request's magic")
          .isEqualTo(extended ? 0x21e41c71 : 0x25609513);
      int flags = header.getShort();
      int type = header.getShort();
      long cookie = header.getLong();
      long offset = header.getLong();
      long length = extended ? header.getLong() : Integer.toUnsignedLong(header.getInt());
      return new Asked(flags, type, cookie, offset, length, take(type == 1 ? (int) length : 0));
    }

    /** Answers by a simple reply. */
    public Peer simple(Asked asked, int error, byte... data) throws IOException {
      return send(Bytes.of().u32(SIMPLE).u32(error).u64(asked.cookie()).raw(data));
    }

    /** Answers by a chunk, with the header that was agreed on. */
    public Peer chunk(Asked asked, boolean done, int type, byte... payload) throws IOException {
      return replies == Replies.EXTENDED
          ? send(extended(asked, asked.offset(), done, type, payload))
          : send(
              Bytes.of()
                  .u32(CHUNK)
                  .u16(done ? 1 : 0)
                  .u16(type)
                  .u64(asked.cookie())
                  .u32(payload.length)
                  .raw(payload));
    }

    /** Encodes a chunk with an extended header. */
    public static Bytes extended(
        Asked asked, long offset, boolean done, int type, byte... payload) {
      return Bytes.of()
          .u32(EXTENDED)
          .u16(done ? 1 : 0)
          .u16(type)
          .u64(asked.cookie())
          .u64(offset)
          .u64(payload.length)
          .raw(payload);
    }

    /** Answers with success and no data, in the form that was agreed on. */
    public Peer done(Asked asked) throws IOException {
      return replies == Replies.EXTENDED ? chunk(asked, true, 0) : simple(asked, 0);
    }

    /** Answers a READ with this data, in the form that was agreed on. */
    public Peer data(Asked asked, byte... data) throws IOException {
      return replies == Replies.SIMPLE
          ? simple(asked, 0, data)
          : chunk(asked, true, 1, Bytes.of().u64(asked.offset()).raw(data).toArray());
    }
  }

  /** Encodes the data of the information on size and flags. */
  public static byte[] export(long size, int flags) {
    return Bytes.of().u16(0).u64(size).u16(flags).toArray();
  }

  /** Encodes the data of the information on block sizes. */
  public static byte[] blockSizes(long minimum, long preferred, long maximum) {
    return Bytes.of().u16(3).u32(minimum).u32(preferred).u32(maximum).toArray();
  }

  /** Encodes the data of an entry of a list. */
  public static byte[] listed(String name, String description) {
    byte[] bytes = name.getBytes(UTF_8);
    return Bytes.of().u32(bytes.length).raw(bytes).text(description).toArray();
  }

  /** Encodes the data of a metadata context. */
  public static byte[] context(int id, String name) {
    return Bytes.of().u32(id).text(name).toArray();
  }

  /** Returns so many copies of a script. */
  public static Script[] times(int count, Script script) {
    return List.copyOf(java.util.Collections.nCopies(count, script)).toArray(new Script[0]);
  }
}
