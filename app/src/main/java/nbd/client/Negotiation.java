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
import java.util.Optional;
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
 * The client's side of the handshake: newstyle, fixed or not. The caller adds the server's name to
 * the messages of what this throws.
 */
final class Negotiation {
  private static final long OLDSTYLE = 0x0000_4202_8186_1253L;
  private static final int PADDING = 124;

  final Wire wire;
  final WireInput in;
  private final OptionExchange options;
  private final NbdUri uri;

  private boolean fixed;
  private boolean zeroes;
  private boolean structured;
  private boolean extended;

  Negotiation(Wire wire, WireInput in, NbdUri uri) {
    this.wire = wire;
    this.in = in;
    this.options = new OptionExchange(wire, in);
    this.uri = uri;
  }

  /** Opens the export of the URI with base:allocation, and enters the transmission phase. */
  ExportInfo open() throws IOException {
    return open(List.of(BaseAllocation.NAME));
  }

  /** Opens the export of the URI with these contexts, and enters the transmission phase. */
  ExportInfo open(List<String> contexts) throws IOException {
    greet();
    if (!fixed) {
      return openByName(Map.of());
    }
    agreeOnReplies();
    return enter(Option.GO, contexts);
  }

  /** Asks for what {@link #open} would return, and ends the handshake. */
  ExportInfo info() throws IOException {
    greet();
    requireOptions("tell of its exports");
    agreeOnReplies();
    ExportInfo info = enter(Option.INFO, List.of(BaseAllocation.NAME));
    leave();
    return info;
  }

  /** Lists the exports, and ends the handshake. */
  List<ListedExport> list() throws IOException {
    greet();
    requireOptions("list");
    List<ListedExport> exports = new ArrayList<>();
    Optional<OptionReply> error =
        options.ask(
            Option.LIST,
            new byte[0],
            OptionReplyType.SERVER,
            data -> exports.add(listedExport(data)));
    OptionExchange.throwIfRefused(error, "the list of exports is");
    leave();
    return exports;
  }

  private static ListedExport listedExport(ByteBuffer data) throws ProtocolException {
    long length = data.remaining() < 4 ? Long.MAX_VALUE : Integer.toUnsignedLong(data.getInt());
    if (length > data.remaining()) {
      throw new ProtocolException("a listed export's name is longer than the reply");
    }
    String name = name(data.slice(data.position(), (int) length));
    data.position(data.position() + (int) length);
    return new ListedExport(name, OptionExchange.text(data));
  }

  /** Lists the metadata contexts of the URI's export, and ends the handshake. */
  List<String> listContexts() throws IOException {
    greet();
    requireOptions("list its metadata contexts");
    agreeOnReplies();
    List<String> names =
        structured
            ? List.copyOf(contexts(Option.LIST_META_CONTEXT, List.of()).keySet())
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
      // The server may disconnect as soon as it has answered.
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
      throw new ProtocolException(
          "the server speaks the oldstyle handshake, which is not supported");
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
      OptionExchange.throwIfRefused(options.ask(Option.STARTTLS), "TLS is");
      if (in.buffered() > 0) {
        throw new ProtocolException("the server sent something between its ACK and TLS");
      }
      wire.startTls(uri);
    }
  }

  private void agreeOnReplies() throws IOException {
    extended = isAccepted(options.ask(Option.EXTENDED_HEADERS));
    structured = extended || isAccepted(options.ask(Option.STRUCTURED_REPLY));
  }

  /** Checks the answer to an option that the client can do without, unless TLS is required. */
  private static boolean isAccepted(Optional<OptionReply> error) throws OptionException {
    if (error.isPresent() && error.get().type() == OptionReplyType.ERR_TLS_REQD) {
      OptionExchange.throwIfRefused(error, "a connection without TLS is");
    }
    return error.isEmpty();
  }

  /**
   * Selects or lists contexts.
   *
   * @param queries none to list all
   * @return contexts and their numbers; empty also if the server refuses: GO will say why
   */
  private Map<String, Integer> contexts(Option option, List<String> queries) throws IOException {
    boolean select = option == Option.SET_META_CONTEXT;
    Map<String, Integer> contexts = new LinkedHashMap<>();
    Optional<OptionReply> error =
        options.ask(
            option,
            contextData(queries),
            OptionReplyType.META_CONTEXT,
            data -> {
              if (data.remaining() < 5) {
                throw new ProtocolException("a metadata context has no name");
              }
              int id = data.getInt();
              String name = name(data);
              boolean asked = !select || queries.contains(name);
              if (!asked || contexts.put(name, id) != null) {
                throw new ProtocolException(
                    "the server chose the metadata context \"%s\", which was not asked for"
                        .formatted(name));
              }
            });
    return isAccepted(error) ? contexts : Map.of();
  }

  private byte[] contextData(List<String> queries) {
    byte[] name = uri.exportName().getBytes(StandardCharsets.UTF_8);
    List<byte[]> encoded =
        queries.stream().map(query -> query.getBytes(StandardCharsets.UTF_8)).toList();
    int queryBytes = encoded.stream().mapToInt(query -> 4 + query.length).sum();
    ByteBuffer data = ByteBuffer.allocate(8 + name.length + queryBytes);
    data.putInt(name.length).put(name).putInt(encoded.size());
    encoded.forEach(query -> data.putInt(query.length).put(query));
    return data.array();
  }

  /** Asks by GO or INFO. */
  private ExportInfo enter(Option option, List<String> wanted) throws IOException {
    Map<String, Integer> contexts =
        structured ? contexts(Option.SET_META_CONTEXT, wanted) : Map.of();
    InfoReplies infos = new InfoReplies();
    Optional<OptionReply> error =
        options.ask(option, exportData(), OptionReplyType.INFO, infos::take);
    boolean unknown = error.isPresent() && error.get().type() == OptionReplyType.ERR_UNSUP;
    if (unknown && option == Option.GO && !extended) {
      return openByName(contexts);
    }
    OptionExchange.throwIfRefused(error, "export \"%s\" is".formatted(uri.exportName()));
    return infos.export(uri.exportName(), true, structured, extended, contexts);
  }

  private byte[] exportData() {
    byte[] name = uri.exportName().getBytes(StandardCharsets.UTF_8);
    List<InfoType> wanted = List.of(InfoType.NAME, InfoType.DESCRIPTION, InfoType.BLOCK_SIZE);
    ByteBuffer data = ByteBuffer.allocate(6 + name.length + 2 * wanted.size());
    data.putInt(name.length).put(name).putShort((short) wanted.size());
    wanted.forEach(type -> data.putShort((short) type.code()));
    return data.array();
  }

  /** Opens the export by an option that has no error: the server can only disconnect. */
  private ExportInfo openByName(Map<String, Integer> contexts) throws IOException {
    String name = uri.exportName();
    options.send(Option.EXPORT_NAME, name.getBytes(StandardCharsets.UTF_8));
    InfoReplies info = new InfoReplies();
    try {
      in.require(10);
      info.takeExport(in.buffer());
    } catch (EOFException | SocketException refused) {
      throw new IOException(
          "the server closed the connection instead of opening export \"%s\"".formatted(name)
              + "; perhaps it has none of this name",
          refused);
    }
    if (zeroes) {
      in.skip(PADDING);
    }
    return info.export(name, fixed, structured, extended, contexts);
  }

  private static String name(ByteBuffer data) throws ProtocolException {
    try {
      return ExportRequest.name(data);
    } catch (ExportRequest.MalformedException malformed) {
      throw new ProtocolException("in the server's list, " + malformed.reason());
    }
  }
}
