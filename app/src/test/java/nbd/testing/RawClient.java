package nbd.testing;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.Closeable;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.nio.channels.SocketChannel;
import java.util.ArrayList;
import java.util.List;

/**
 * A client that speaks bytes and checks every byte that comes back. It knows the protocol's numbers
 * by itself, sends at any {@link Pace}, and ends at any byte in any way.
 */
public final class RawClient implements Closeable {
  public static final int ACK = 1;
  public static final int SERVER = 2;
  public static final int INFO = 3;
  public static final int META_CONTEXT = 4;
  public static final int ERR_UNSUP = 0x80000001;
  public static final int ERR_POLICY = 0x80000002;
  public static final int ERR_INVALID = 0x80000003;
  public static final int ERR_TLS_REQD = 0x80000005;
  public static final int ERR_UNKNOWN = 0x80000006;
  public static final int ERR_TOO_BIG = 0x80000009;
  public static final int ERR_EXT_HEADER_REQD = 0x8000000a;

  public static final int EXPORT_NAME = 1;
  public static final int ABORT = 2;
  public static final int LIST = 3;
  public static final int STARTTLS = 5;
  public static final int OPT_INFO = 6;
  public static final int GO = 7;
  public static final int STRUCTURED_REPLY = 8;
  public static final int LIST_META_CONTEXT = 9;
  public static final int SET_META_CONTEXT = 10;
  public static final int EXTENDED_HEADERS = 11;

  public static final int READ = 0;
  public static final int WRITE = 1;
  public static final int DISC = 2;
  public static final int FLUSH = 3;
  public static final int TRIM = 4;
  public static final int CACHE = 5;
  public static final int WRITE_ZEROES = 6;
  public static final int BLOCK_STATUS = 7;
  public static final int RESIZE = 8;

  public static final int FUA = 1;
  public static final int NO_HOLE = 2;
  public static final int DF = 4;
  public static final int REQ_ONE = 8;
  public static final int FAST_ZERO = 0x10;
  public static final int PAYLOAD_LEN = 0x20;

  public static final int EPERM = 1;
  public static final int EIO = 5;
  public static final int ENOMEM = 12;
  public static final int EINVAL = 22;
  public static final int ENOSPC = 28;
  public static final int ENOTSUP = 95;

  /** The number that this server gives to base:allocation. */
  public static final int CONTEXT = 1;

  /** The number that this server gives to a dirty bitmap. */
  public static final int BITMAP = 2;

  private static final long OPTION_REPLY = 0x0003e889045565a9L;
  private static final int SIMPLE_REPLY = 0x67446698;
  private static final int SMALL_BUFFER = 2048;

  private final SocketChannel channel;

  /** The channel, or TLS above it. */
  private ByteChannel stream;

  private Pace pace = Pace.WHOLE;
  private long nextCookie = 0x5eed_0000_0000_0000L;

  private RawClient(SocketChannel channel) {
    this.channel = channel;
    this.stream = channel;
  }

  /** A reply to an option. */
  public static final class Reply {
    private final int type;
    private final byte[] data;

    private Reply(int type, byte... data) {
      this.type = type;
      this.data = data;
    }

    /** Returns the type, as on the wire. */
    public int type() {
      return type;
    }

    /** Returns the data after the header. */
    public byte[] data() {
      return data;
    }
  }

  /** The size and transmission flags of an export, as the server sends them in the handshake. */
  public record Export(long size, int flags) {
    /** Says whether the transmission flag with this bit number is set. */
    public boolean has(int bit) {
      return (flags & 1 << bit) != 0;
    }
  }

  /** Connects, and sends nothing. */
  public static RawClient connect(SocketAddress address) throws IOException {
    return new RawClient(SocketChannel.open(address));
  }

  /** Connects with the smallest receive buffer, so that the server's writes are taken in parts. */
  public static RawClient connectNarrow(SocketAddress address) throws IOException {
    boolean tcp = address instanceof InetSocketAddress;
    SocketChannel channel =
        SocketChannel.open(tcp ? StandardProtocolFamily.INET : StandardProtocolFamily.UNIX);
    channel.setOption(StandardSocketOptions.SO_RCVBUF, SMALL_BUFFER);
    channel.connect(address);
    return new RawClient(channel);
  }

  /** Sends at this pace from now on. */
  public RawClient pace(Pace newPace) {
    pace = newPace;
    return this;
  }

  /** Sends bytes. */
  public RawClient send(byte... bytes) throws IOException {
    ByteBuffer left = ByteBuffer.wrap(bytes);
    while (left.hasRemaining()) {
      int piece = pace.next(left.remaining());
      ByteBuffer part = left.slice(left.position(), piece);
      while (part.hasRemaining()) {
        stream.write(part);
      }
      left.position(left.position() + piece);
    }
    return this;
  }

  /** Waits for exactly so many bytes. */
  public byte[] take(int count) throws IOException {
    ByteBuffer into = ByteBuffer.allocate(count);
    while (into.hasRemaining()) {
      int read = stream.read(into);
      assertThat(read)
          .as("the end came after %d of %d bytes", into.position(), count)
          .isNotNegative();
    }
    return into.array();
  }

  private ByteBuffer takeBuffer(int count) throws IOException {
    return ByteBuffer.wrap(take(count));
  }

  /** Waits for the server's end of the stream, and fails if a byte comes before it. */
  public void expectEnd() throws IOException {
    ByteBuffer stray = ByteBuffer.allocate(64);
    int read;
    try {
      read = stream.read(stray);
    } catch (IOException reset) {
      assertThat(reset).hasMessageContainingAll("reset");
      return;
    }
    assertThat(read).as("stray bytes %s", java.util.Arrays.toString(stray.array())).isEqualTo(-1);
  }

  // The handshake.

  /** Waits for the greeting. */
  public RawClient greeting() throws IOException {
    byte[] expected = Bytes.of().text("NBDMAGIC").text("IHAVEOPT").u16(3).toArray();
    assertThat(take(18)).as("the greeting").isEqualTo(expected);
    return this;
  }

  /** Waits for the greeting, and answers it. */
  public RawClient hello(int clientFlags) throws IOException {
    return greeting().send(Bytes.of().u32(clientFlags).toArray());
  }

  /** Encodes an option. */
  public static byte[] optionBytes(int option, byte... data) {
    return Bytes.of().raw(optionHeader(option, data.length)).raw(data).toArray();
  }

  /** Encodes an option's header, of 16 bytes. */
  public static byte[] optionHeader(int option, long length) {
    return Bytes.of().text("IHAVEOPT").u32(option).u32(length).toArray();
  }

  /** Sends an option. */
  public RawClient option(int option, byte... data) throws IOException {
    return send(optionBytes(option, data));
  }

  /** Encodes the data of INFO and GO. */
  public static byte[] infoData(String name, int... infos) {
    byte[] bytes = name.getBytes(UTF_8);
    Bytes data = Bytes.of().u32(bytes.length).raw(bytes).u16(infos.length);
    for (int info : infos) {
      data.u16(info);
    }
    return data.toArray();
  }

  /** Encodes the data of LIST_META_CONTEXT and SET_META_CONTEXT. */
  public static byte[] contextData(String name, String... queries) {
    byte[] bytes = name.getBytes(UTF_8);
    Bytes data = Bytes.of().u32(bytes.length).raw(bytes).u32(queries.length);
    for (String query : queries) {
      data.u32(query.getBytes(UTF_8).length).text(query);
    }
    return data.toArray();
  }

  /** Agrees on a form of replies. */
  public RawClient agree(Replies replies) throws IOException {
    return replies == Replies.SIMPLE ? this : option(replies.option()).expectAck(replies.option());
  }

  /** Selects base:allocation. */
  public RawClient selectAllocation(String name) throws IOException {
    option(SET_META_CONTEXT, contextData(name, "base:allocation"));
    Reply reply = reply(SET_META_CONTEXT);
    assertThat(reply.type()).isEqualTo(META_CONTEXT);
    assertThat(reply.data()).isEqualTo(Bytes.of().u32(CONTEXT).text("base:allocation").toArray());
    return expectAck(SET_META_CONTEXT);
  }

  /** Selects contexts; returns the server's number and name of each. */
  public List<String> selectContexts(String name, String... queries) throws IOException {
    return contexts(SET_META_CONTEXT, name, queries);
  }

  /** Lists contexts; returns the server's number and name of each. */
  public List<String> listContexts(String name, String... queries) throws IOException {
    return contexts(LIST_META_CONTEXT, name, queries);
  }

  private List<String> contexts(int option, String name, String... queries) throws IOException {
    option(option, contextData(name, queries));
    List<String> contexts = new ArrayList<>();
    for (Reply reply = reply(option); reply.type() != ACK; reply = reply(option)) {
      assertThat(reply.type()).as(text(reply)).isEqualTo(META_CONTEXT);
      contexts.add(ByteBuffer.wrap(reply.data()).getInt() + " " + text(reply).substring(4));
    }
    return contexts;
  }

  /** Waits for one reply to an option. */
  public Reply reply(int option) throws IOException {
    ByteBuffer header = takeBuffer(20);
    assertThat(header.getLong()).as("the reply's magic").isEqualTo(OPTION_REPLY);
    assertThat(header.getInt()).as("the reply's option").isEqualTo(option);
    int type = header.getInt();
    int length = header.getInt();
    assertThat(length).as("the reply's length").isBetween(0, 1 << 16);
    return new Reply(type, take(length));
  }

  /** Waits for an ACK without data. */
  public RawClient expectAck(int option) throws IOException {
    Reply reply = reply(option);
    assertThat(Integer.toHexString(reply.type())).as("%s", text(reply)).isEqualTo("1");
    assertThat(reply.data()).as("an ACK's data").isEmpty();
    return this;
  }

  /** Waits for an error, and returns its message. */
  public String expectError(int option, int type) throws IOException {
    Reply reply = reply(option);
    assertThat(Integer.toHexString(reply.type())).isEqualTo(Integer.toHexString(type));
    assertThat(text(reply)).as("the error's sentence").contains(" ");
    return text(reply);
  }

  /** Returns a reply's data as text. */
  public static String text(Reply reply) {
    return new String(reply.data(), UTF_8);
  }

  /** Waits for the replies to INFO or GO, and returns those before the ACK. */
  public List<Reply> expectInfos(int option) throws IOException {
    List<Reply> infos = new ArrayList<>();
    while (true) {
      Reply reply = reply(option);
      if (reply.type() == ACK) {
        assertThat(reply.data()).isEmpty();
        return infos;
      }
      assertThat(Integer.toHexString(reply.type())).as(text(reply)).isEqualTo("3");
      infos.add(reply);
    }
  }

  /** Returns the export's size and flags from the replies to INFO or GO. */
  public static Export export(List<Reply> infos) {
    List<Reply> exports = infos.stream().filter(info -> infoType(info) == 0).toList();
    assertThat(exports).as("pieces of information on the export").hasSize(1);
    ByteBuffer data = ByteBuffer.wrap(exports.getFirst().data());
    assertThat(data.capacity()).isEqualTo(12);
    Export export = new Export(data.getLong(2), Short.toUnsignedInt(data.getShort(10)));
    assertThat(export.has(0)).as("HAS_FLAGS").isTrue();
    return export;
  }

  /** Returns the type of the information in a reply to INFO or GO. */
  public static int infoType(Reply info) {
    return ByteBuffer.wrap(info.data()).getShort();
  }

  /** Enters transmission, from the greeting on. */
  public Export enter(String name) throws IOException {
    return hello(3).go(name);
  }

  /** Enters transmission after the options. */
  public Export go(String name) throws IOException {
    return export(option(GO, infoData(name)).expectInfos(GO));
  }

  /** Sends ABORT, and waits for the end of the stream. */
  public void abort() throws IOException {
    option(ABORT).expectAck(ABORT).expectEnd();
  }

  /** A way to put TLS above a channel. */
  @FunctionalInterface
  public interface Upgrade {
    ByteChannel above(ByteChannel plain) throws IOException;
  }

  /** Asks for TLS, and continues inside it. */
  public RawClient startTls(Upgrade tls) throws IOException {
    option(STARTTLS).expectAck(STARTTLS);
    return inside(tls);
  }

  /** Continues inside TLS, without asking the server for it. */
  public RawClient inside(Upgrade tls) throws IOException {
    stream = tls.above(channel);
    return this;
  }

  // Transmission.

  /** Encodes a request's header, of 28 bytes. */
  public static byte[] requestBytes(int flags, int type, long cookie, long offset, long length) {
    return Bytes.of()
        .u32(0x25609513)
        .u16(flags)
        .u16(type)
        .u64(cookie)
        .u64(offset)
        .u32(length)
        .toArray();
  }

  /** Sends a request, with its payload. */
  public RawClient request(
      int flags, int type, long cookie, long offset, long length, byte... payload)
      throws IOException {
    return send(requestBytes(flags, type, cookie, offset, length)).send(payload);
  }

  /** Waits for a reply's header, checks its error, and returns its cookie. */
  public long expectReply(int error) throws IOException {
    ByteBuffer header = takeBuffer(16);
    assertThat(header.getInt()).as("the reply's magic").isEqualTo(SIMPLE_REPLY);
    assertThat(header.getInt()).as("the reply's error").isEqualTo(error);
    return header.getLong();
  }

  /** Waits for a reply's header, and checks its error and its cookie. */
  public RawClient expectReply(int error, long cookie) throws IOException {
    assertThat(expectReply(error)).as("the reply's cookie").isEqualTo(cookie);
    return this;
  }

  /**
   * Sends a request, waits for its reply's header, and checks the error; a READ's data is not
   * taken.
   */
  public RawClient call(int error, int flags, int type, long offset, long length, byte... payload)
      throws IOException {
    long cookie = nextCookie++;
    return request(flags, type, cookie, offset, length, payload).expectReply(error, cookie);
  }

  /** Sends a request, waits for its reply's header, and returns the error. */
  public int errorOf(int flags, int type, long offset, long length, byte... payload)
      throws IOException {
    long cookie = nextCookie++;
    ByteBuffer header = request(flags, type, cookie, offset, length, payload).takeBuffer(16);
    assertThat(header.getInt()).as("the reply's magic").isEqualTo(SIMPLE_REPLY);
    int error = header.getInt();
    assertThat(header.getLong()).as("the reply's cookie").isEqualTo(cookie);
    return error;
  }

  public byte[] read(long offset, int length) throws IOException {
    call(0, 0, READ, offset, length);
    return take(length);
  }

  public RawClient write(long offset, byte... data) throws IOException {
    return call(0, 0, WRITE, offset, data.length, data);
  }

  public RawClient flush() throws IOException {
    return call(0, 0, FLUSH, 0, 0);
  }

  /** Sends DISC, and waits for the end of the stream. */
  public void disconnect() throws IOException {
    request(0, DISC, 0, 0, 0).expectEnd();
    close();
  }

  // Ways to leave.

  /** Ends the stream to the server; its replies can still be taken. */
  public RawClient halfClose() throws IOException {
    channel.shutdownOutput();
    return this;
  }

  /** Closes the connection, on TCP by a reset. */
  public void reset() throws IOException {
    if (channel.getRemoteAddress() instanceof InetSocketAddress) {
      channel.setOption(StandardSocketOptions.SO_LINGER, 0);
    }
    channel.close();
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
