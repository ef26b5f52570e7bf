package nbd.client;

import java.io.EOFException;
import java.io.IOException;
import java.net.SocketException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import nbd.protocol.BaseAllocation;
import nbd.protocol.ExportRequest;
import nbd.protocol.HandshakeFlag;
import nbd.protocol.InfoType;
import nbd.protocol.Magic;
import nbd.protocol.Option;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReply;
import nbd.protocol.OptionReplyType;
import nbd.protocol.ProtocolException;
import nbd.protocol.WireInput;
import nbd.storage.ListedExport;

/**
 * The client's side of the handshake: newstyle, fixed or not. Messages of what it throws do not
 * name the server; who calls does that.
 */
final class Negotiation {
  private static final long OLDSTYLE = 0x0000_4202_8186_1253L;
  private static final int PADDING = 124;
  private static final int MOST_LISTED_BYTES = 16 << 20;

  private final Wire wire;
  private final WireInput in;
  private final OptionExchange options;
  private final NbdUri uri;
  private final ClientSettings settings;

  private boolean fixed;
  private boolean zeroes;
  private boolean structured;
  private boolean extended;

  Negotiation(Wire wire, WireInput in, NbdUri uri, ClientSettings settings) {
    this.wire = wire;
    this.in = in;
    this.options = new OptionExchange(wire, in);
    this.uri = uri;
    this.settings = settings;
  }

  /** Enters the transmission phase. */
  ExportInfo open(String exportName) throws IOException {
    greet();
    if (!fixed) {
      return openByName(exportName, Map.of());
    }
    agreeOnReplies();
    Map<String, Integer> contexts =
        structured ? contexts(Option.SET_META_CONTEXT, exportName, BaseAllocation.NAME) : Map.of();
    return go(exportName, contexts);
  }

  /** Names the exports; the connection has ended then. */
  List<ListedExport> list() throws IOException {
    greet();
    requireOptions("list");
    options.send(Option.LIST);
    List<ListedExport> exports = new ArrayList<>();
    long bytes = 0;
    while (true) {
      OptionReply reply = options.nextUnlessRefused(Option.LIST, "the list of exports is");
      if (reply.type() == OptionReplyType.ACK) {
        options.checkAck(Option.LIST, reply);
        leave();
        return exports;
      }
      if (reply.type() != OptionReplyType.SERVER) {
        throw OptionExchange.unexpected(Option.LIST, reply);
      }
      bytes += Long.BYTES + reply.data().remaining();
      if (bytes > MOST_LISTED_BYTES) {
        throw new ProtocolException(
            "the list of exports is longer than %d bytes".formatted(MOST_LISTED_BYTES));
      }
      exports.add(listed(reply.data()));
    }
  }

  private static ListedExport listed(ByteBuffer data) throws ProtocolException {
    long length = data.remaining() < 4 ? Long.MAX_VALUE : Integer.toUnsignedLong(data.getInt());
    if (length > data.remaining()) {
      throw new ProtocolException("a listed export's name is longer than the reply");
    }
    String name = name(data.slice(data.position(), (int) length));
    data.position(data.position() + (int) length);
    return new ListedExport(name, OptionExchange.text(data));
  }

  /** Names the metadata contexts of an export; the connection has ended then. */
  List<String> listContexts(String exportName) throws IOException {
    greet();
    requireOptions("tell its metadata contexts");
    agreeOnReplies();
    List<String> names =
        structured
            ? List.copyOf(contexts(Option.LIST_META_CONTEXT, exportName).keySet())
            : List.of();
    leave();
    return names;
  }

  private void requireOptions(String what) throws IOException {
    if (!fixed) {
      throw new IOException("the server cannot " + what + ": it is not of the fixed newstyle");
    }
  }

  private void leave() {
    try {
      options.send(Option.ABORT);
    } catch (IOException ignored) {
      // A server may be gone as soon as it has answered.
    }
  }

  private void greet() throws IOException {
    in.require(18);
    ByteBuffer greeting = in.buffer();
    long magic = greeting.getLong();
    if (magic != Magic.GREETING) {
      throw new ProtocolException("this is no NBD server: it greets with 0x%016x".formatted(magic));
    }
    long style = greeting.getLong();
    if (style == OLDSTYLE) {
      throw new ProtocolException("the server speaks the oldstyle handshake, which is not known");
    }
    if (style != Magic.OPTION) {
      throw new ProtocolException("the server's greeting continues with 0x%016x".formatted(style));
    }
    int taken = Short.toUnsignedInt(greeting.getShort()) & HandshakeFlag.ALL;
    fixed = HandshakeFlag.FIXED_NEWSTYLE.isIn(taken);
    zeroes = !HandshakeFlag.NO_ZEROES.isIn(taken);
    wire.write(ByteBuffer.allocate(4).putInt(taken).flip());
    if (uri.tls()) {
      requireOptions("do TLS");
      startTls();
    }
  }

  private void startTls() throws IOException {
    options.send(Option.STARTTLS);
    options.expectAck(Option.STARTTLS, "TLS is");
    if (in.buffered() > 0) {
      throw new ProtocolException("the server sent something between its ACK and TLS");
    }
    wire.upgrade(settings.tls(), uri);
  }

  private void agreeOnReplies() throws IOException {
    if (settings.extendedHeaders() && isAccepted(Option.EXTENDED_HEADERS)) {
      extended = true;
      structured = true;
    } else if (settings.structuredReplies()) {
      structured = isAccepted(Option.STRUCTURED_REPLY);
    }
  }

  /** An option that can be done without. */
  private boolean isAccepted(Option option) throws IOException {
    options.send(option);
    OptionReply reply = options.next(option);
    if (reply.type().isError()) {
      refuseWithoutTls(reply);
      return false;
    }
    if (reply.type() != OptionReplyType.ACK) {
      throw OptionExchange.unexpected(option, reply);
    }
    options.checkAck(option, reply);
    return true;
  }

  private static void refuseWithoutTls(OptionReply error) throws OptionException {
    if (error.type() == OptionReplyType.ERR_TLS_REQD) {
      throw OptionExchange.refusal(error, "a connection without TLS is");
    }
  }

  /** What of these queries the server knows; nothing if it refuses: GO will tell why. */
  private Map<String, Integer> contexts(Option option, String exportName, String... queries)
      throws IOException {
    options.send(option, contextQueries(exportName, queries));
    Map<String, Integer> contexts = new LinkedHashMap<>();
    long bytes = 0;
    while (true) {
      OptionReply reply = options.next(option);
      if (reply.type().isError()) {
        refuseWithoutTls(reply);
        return Map.of();
      }
      if (reply.type() == OptionReplyType.ACK) {
        options.checkAck(option, reply);
        return contexts;
      }
      ByteBuffer data = reply.data();
      bytes += data.remaining();
      if (reply.type() != OptionReplyType.META_CONTEXT || bytes > MOST_LISTED_BYTES) {
        throw OptionExchange.unexpected(option, reply);
      }
      if (data.remaining() < 5) {
        throw new ProtocolException("a metadata context has no name");
      }
      int id = data.getInt();
      String name = name(data);
      boolean asked = option == Option.LIST_META_CONTEXT || List.of(queries).contains(name);
      if (!asked || contexts.put(name, id) != null) {
        throw new ProtocolException(
            "the server chose the metadata context \"%s\", which was not asked for"
                .formatted(name));
      }
    }
  }

  private static ByteBuffer contextQueries(String exportName, String... queries) {
    byte[] name = exportName.getBytes(StandardCharsets.UTF_8);
    int length = 8 + name.length;
    for (String query : queries) {
      length += 4 + query.getBytes(StandardCharsets.UTF_8).length;
    }
    ByteBuffer data = ByteBuffer.allocate(length).putInt(name.length).put(name);
    data.putInt(queries.length);
    for (String query : queries) {
      byte[] bytes = query.getBytes(StandardCharsets.UTF_8);
      data.putInt(bytes.length).put(bytes);
    }
    return data.flip();
  }

  private ExportInfo go(String exportName, Map<String, Integer> contexts) throws IOException {
    options.send(Option.GO, goData(exportName));
    String what = "export \"%s\" is".formatted(exportName);
    ToldInfo told = new ToldInfo();
    while (true) {
      OptionReply reply = options.next(Option.GO);
      if (reply.type() == OptionReplyType.ERR_UNSUP && !extended) {
        return openByName(exportName, contexts);
      }
      if (reply.type().isError()) {
        throw OptionExchange.refusal(reply, what);
      }
      if (reply.type() == OptionReplyType.ACK) {
        options.checkAck(Option.GO, reply);
        return told.export(exportName, true, structured, extended, contexts);
      }
      if (reply.type() != OptionReplyType.INFO) {
        throw OptionExchange.unexpected(Option.GO, reply);
      }
      told.take(reply.data());
    }
  }

  private static ByteBuffer goData(String exportName) {
    byte[] name = exportName.getBytes(StandardCharsets.UTF_8);
    List<InfoType> wanted = List.of(InfoType.NAME, InfoType.DESCRIPTION, InfoType.BLOCK_SIZE);
    ByteBuffer data = ByteBuffer.allocate(6 + name.length + 2 * wanted.size());
    data.putInt(name.length).put(name).putShort((short) wanted.size());
    wanted.forEach(type -> data.putShort((short) type.code()));
    return data.flip();
  }

  /** The option that cannot be refused: the server answers with the export, or ends. */
  private ExportInfo openByName(String exportName, Map<String, Integer> contexts)
      throws IOException {
    byte[] name = exportName.getBytes(StandardCharsets.UTF_8);
    options.send(Option.EXPORT_NAME, ByteBuffer.wrap(name));
    ToldInfo told = new ToldInfo();
    try {
      in.require(10);
      told.takeExport(in.buffer());
    } catch (EOFException | SocketException refused) {
      throw new IOException(
          "the server closed the connection instead of opening export \"%s\"".formatted(exportName)
              + "; perhaps it has none of this name",
          refused);
    }
    if (zeroes) {
      in.skip(PADDING);
    }
    return told.export(exportName, fixed, structured, extended, contexts);
  }

  private static String name(ByteBuffer data) throws ProtocolException {
    try {
      return ExportRequest.name(data);
    } catch (ExportRequest.MalformedException malformed) {
      throw new ProtocolException("in what the server lists, " + malformed.reason());
    }
  }
}
