package nbd.server;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.util.List;
import java.util.Optional;
import nbd.protocol.BaseAllocation;
import nbd.protocol.ExportRequest;
import nbd.protocol.ExportRequest.MalformedException;
import nbd.protocol.HandshakeFlag;
import nbd.protocol.InfoType;
import nbd.protocol.Magic;
import nbd.protocol.MetaContextRequest;
import nbd.protocol.NbdException;
import nbd.protocol.Option;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReply;
import nbd.protocol.OptionReplyType;
import nbd.protocol.OptionRequest;
import nbd.protocol.Printable;
import nbd.protocol.ProtocolException;
import nbd.protocol.ReplyFormat;
import nbd.protocol.TransmissionFlag;
import nbd.protocol.WireInput;
import nbd.storage.ListedExport;
import nbd.transmission.BlockStatus;
import nbd.transmission.OpenExport;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The handshake of one connection, run by its virtual thread: fixed newstyle, until the client has
 * chosen an export or leaves.
 */
final class Handshake {
  /** Longer data of an option is read and dropped up to this length; above it, so is the client. */
  private static final long DROPPED_DATA = 32L << 20;

  private static final int EXPORT_NAME_PADDING = 124;

  /** A client that asks for one name after the other must not fill the log. */
  private static final int MOST_REFUSALS_LOGGED = 10;

  private final String peer;
  private final Wire wire;
  private final WireInput in;
  private final WritableByteChannel out;
  private final Exports exports;
  private final TlsPolicy tls;

  /** The export of the client's last INFO or GO; its handle is owned here until it is used. */
  private @Nullable OpenExport opened;

  private String lastRefusal = "";
  private int refusals;

  private boolean fixed;
  private boolean padding;
  private ReplyFormat format = ReplyFormat.SIMPLE;

  /** For which export the client has selected base:allocation: it counts for no other one. */
  private Optional<String> allocationOf = Optional.empty();

  /** The handshake of a client that has sent nothing yet, on a wire that has no TLS. */
  Handshake(String peer, Wire wire, Exports exports, TlsPolicy tls) {
    this.peer = peer;
    this.wire = wire;
    this.in = wire.in();
    this.out = wire.out();
    this.exports = exports;
    this.tls = tls;
  }

  /**
   * What follows STARTTLS: a handshake of its own, so that nothing of what was agreed on before, by
   * whomever, is left; but the client's flags, which are not sent again.
   */
  private Handshake(Handshake before) {
    this(before.peer, before.wire, before.exports, before.tls);
    this.lastRefusal = before.lastRefusal;
    this.refusals = before.refusals;
    this.fixed = before.fixed;
    this.padding = before.padding;
  }

  /**
   * Negotiates.
   *
   * @return the export for the transmission phase, whose handle the caller closes; empty if the
   *     client left
   * @throws IOException why the connection cannot go on; nothing is left open then
   */
  Optional<OpenExport> run() throws IOException {
    greet();
    return options();
  }

  private Optional<OpenExport> options() throws IOException {
    try {
      while (true) {
        OptionRequest option = OptionRequest.read(in);
        Optional<Option> known = Option.of(option.code());
        if (known.isPresent() && known.get() == Option.EXPORT_NAME) {
          if (needsTls()) {
            throw new ProtocolException("EXPORT_NAME without TLS, which is required");
          }
          return Optional.of(exportName(option));
        }
        if (!fixed) {
          throw new ProtocolException("an option without fixed newstyle: " + option.code());
        }
        if (known.isPresent() && known.get() == Option.ABORT) {
          abort(option);
          return Optional.empty();
        }
        if (known.isPresent() && known.get() == Option.STARTTLS) {
          if (startTls(option)) {
            return new Handshake(this).options();
          }
          continue;
        }
        if (needsTls()) {
          drop(option);
          reply(
              option,
              OptionReply.error(
                  OptionReplyType.ERR_TLS_REQD,
                  "this server wants TLS: STARTTLS has to come first"));
          continue;
        }
        if (answer(option, known)) {
          return Optional.of(handOver());
        }
      }
    } finally {
      forget();
    }
  }

  private void forget() throws IOException {
    if (opened != null) {
      opened.handle().close();
      opened = null;
    }
  }

  private boolean needsTls() {
    return tls.required() && !wire.isSecure();
  }

  /** Answers STARTTLS; true if everything else is inside TLS from now on. */
  private boolean startTls(OptionRequest option) throws IOException {
    if (refusedForData(option, "STARTTLS")) {
      return false;
    }
    if (wire.isSecure()) {
      reply(option, OptionReply.error(OptionReplyType.ERR_INVALID, "TLS has been started already"));
      return false;
    }
    if (tls.server().isEmpty()) {
      reply(
          option,
          OptionReply.error(OptionReplyType.ERR_POLICY, "this server was started without TLS"));
      return false;
    }
    wire.requireNothingAhead();
    forget();
    reply(option, OptionReply.of(OptionReplyType.ACK));
    Logger.debug("{}: {}", peer, wire.startTls(tls.server().get()).agreed());
    return true;
  }

  private void greet() throws IOException {
    int offered = HandshakeFlag.ALL;
    send(
        ByteBuffer.allocate(18)
            .putLong(Magic.GREETING)
            .putLong(Magic.OPTION)
            .putShort((short) offered)
            .flip());
    if (!in.fill(4)) {
      throw new EOFException("disconnected before the handshake");
    }
    int flags = in.buffer().getInt();
    if ((flags & ~offered) != 0) {
      throw new ProtocolException(
          "unknown client flags 0x%08x (not an NBD client?)".formatted(flags));
    }
    fixed = HandshakeFlag.FIXED_NEWSTYLE.isIn(flags);
    padding = !HandshakeFlag.NO_ZEROES.isIn(flags);
  }

  private OpenExport exportName(OptionRequest option) throws IOException {
    if (format == ReplyFormat.EXTENDED) {
      throw new ProtocolException("EXPORT_NAME after EXTENDED_HEADERS");
    }
    if (option.length() > ExportRequest.MAXIMUM_NAME_BYTES) {
      throw new ProtocolException("an export name of " + option.length() + " bytes");
    }
    String name;
    try {
      name = ExportRequest.name(data(option));
    } catch (MalformedException malformed) {
      throw new ProtocolException("EXPORT_NAME: " + malformed.reason());
    }
    if (!exports.mayKnow(name)) {
      throw new ProtocolException(
          "EXPORT_NAME: there is no export \"" + Printable.name(name) + "\"");
    }
    OpenExport export;
    try {
      export = open(name);
    } catch (IOException failure) {
      throw new ProtocolException(
          "EXPORT_NAME: export \"%s\" cannot be opened: %s"
              .formatted(Printable.name(name), reason(failure)));
    }
    ByteBuffer reply = ByteBuffer.allocate(10 + (padding ? EXPORT_NAME_PADDING : 0));
    reply.putLong(0, export.handle().size());
    reply.putShort(8, TransmissionFlag.toWire(export.flags()));
    send(reply);
    return handOver();
  }

  private void abort(OptionRequest option) throws IOException {
    in.skip(Math.min(option.length(), DROPPED_DATA));
    try {
      reply(option, OptionReply.of(OptionReplyType.ACK));
    } catch (IOException alreadyGone) {
      Logger.debug("{}: gone before its ABORT was answered", peer);
    }
  }

  private void drop(OptionRequest option) throws IOException {
    if (option.length() > DROPPED_DATA) {
      throw new ProtocolException(
          "option %d with %d bytes".formatted(option.code(), option.length()));
    }
    in.skip(option.length());
  }

  /** Answers an option that has replies; true if the transmission phase begins. */
  private boolean answer(OptionRequest option, Optional<Option> known) throws IOException {
    if (option.length() > ExportRequest.MAXIMUM_BYTES) {
      drop(option);
      reply(
          option,
          OptionReply.error(
              OptionReplyType.ERR_TOO_BIG,
              "the option's data is longer than " + ExportRequest.MAXIMUM_BYTES + " bytes"));
      return false;
    }
    if (known.isPresent()) {
      switch (known.get()) {
        case LIST -> {
          list(option);
          return false;
        }
        case INFO -> {
          info(option);
          return false;
        }
        case GO -> {
          return info(option);
        }
        case STRUCTURED_REPLY -> {
          structuredReply(option);
          return false;
        }
        case EXTENDED_HEADERS -> {
          extendedHeaders(option);
          return false;
        }
        case LIST_META_CONTEXT, SET_META_CONTEXT -> {
          metaContext(option, known.get() == Option.SET_META_CONTEXT);
          return false;
        }
        default -> {}
      }
    }
    in.skip(option.length());
    reply(
        option,
        OptionReply.error(
            OptionReplyType.ERR_UNSUP, "option " + option.code() + " is not supported"));
    return false;
  }

  /** Whether an option that takes no data has some; it is answered then. */
  private boolean refusedForData(OptionRequest option, String what) throws IOException {
    if (option.length() == 0) {
      return false;
    }
    drop(option);
    reply(option, OptionReply.error(OptionReplyType.ERR_INVALID, what + " takes no data"));
    return true;
  }

  private void structuredReply(OptionRequest option) throws IOException {
    if (refusedForData(option, "the option")) {
      return;
    }
    if (format == ReplyFormat.EXTENDED) {
      reply(
          option,
          OptionReply.error(
              OptionReplyType.ERR_EXT_HEADER_REQD, "extended headers are agreed on already"));
      return;
    }
    format = ReplyFormat.STRUCTURED;
    reply(option, OptionReply.of(OptionReplyType.ACK));
  }

  private void extendedHeaders(OptionRequest option) throws IOException {
    if (refusedForData(option, "the option")) {
      return;
    }
    format = ReplyFormat.EXTENDED;
    reply(option, OptionReply.of(OptionReplyType.ACK));
  }

  /** Whether there is an export of a name turns out when it is opened, by INFO or GO. */
  private void metaContext(OptionRequest option, boolean select) throws IOException {
    if (select) {
      allocationOf = Optional.empty();
    }
    if (!format.hasChunks()) {
      in.skip(option.length());
      reply(
          option,
          OptionReply.error(
              OptionReplyType.ERR_INVALID,
              "contexts need STRUCTURED_REPLY or EXTENDED_HEADERS before"));
      return;
    }
    MetaContextRequest request;
    try {
      request = MetaContextRequest.parse(data(option));
    } catch (MalformedException malformed) {
      reply(option, OptionReply.error(OptionReplyType.ERR_INVALID, malformed.reason()));
      return;
    }
    String name = request.name();
    if (!exports.mayKnow(name)) {
      reply(option, unknown(name));
      return;
    }
    if (select && request.selects(BaseAllocation.NAME)) {
      allocationOf = Optional.of(name);
      reply(option, OptionReply.metaContext(BlockStatus.CONTEXT, BaseAllocation.NAME));
    } else if (!select && request.lists(BaseAllocation.NAME, BaseAllocation.WILDCARD)) {
      reply(option, OptionReply.metaContext(0, BaseAllocation.NAME));
    }
    reply(option, OptionReply.of(OptionReplyType.ACK));
  }

  private OptionReply unknown(String name) {
    refused("there is no export \"" + Printable.name(name) + "\"");
    return OptionReply.error(
        OptionReplyType.ERR_UNKNOWN,
        "there is no export \"%s\" here; LIST names them".formatted(Printable.name(name)));
  }

  /** For the log: it may repeat a name, or what another server said. */
  private static String reason(IOException failure) {
    return Printable.sentence(String.valueOf(failure.getMessage()));
  }

  /** Logs why a client does not get what it asked for, unless it only asks again. */
  private void refused(String why) {
    if (!why.equals(lastRefusal) && refusals < MOST_REFUSALS_LOGGED) {
      lastRefusal = why;
      refusals++;
      Logger.warn("{}: refused, {}", peer, why);
    }
  }

  private void list(OptionRequest option) throws IOException {
    if (refusedForData(option, "the option")) {
      return;
    }
    List<ListedExport> list;
    try {
      list = exports.list();
    } catch (IOException failure) {
      refused("the exports cannot be listed: " + reason(failure));
      reply(option, refusal(failure, OptionReplyType.ERR_PLATFORM, "the exports cannot be listed"));
      return;
    }
    for (ListedExport export : list) {
      reply(option, OptionReply.server(export.name(), export.description()));
    }
    reply(option, OptionReply.of(OptionReplyType.ACK));
  }

  /** Answers INFO and GO; true if the answer is yes. */
  private boolean info(OptionRequest option) throws IOException {
    ExportRequest request;
    try {
      request = ExportRequest.parse(data(option));
    } catch (MalformedException malformed) {
      reply(option, OptionReply.error(OptionReplyType.ERR_INVALID, malformed.reason()));
      return false;
    }
    String name = request.name();
    if (!exports.mayKnow(name)) {
      reply(option, unknown(name));
      return false;
    }
    OpenExport export;
    try {
      export = open(name);
    } catch (IOException failure) {
      refused(
          "export \"%s\" cannot be opened: %s".formatted(Printable.name(name), reason(failure)));
      reply(option, refusal(failure, OptionReplyType.ERR_UNKNOWN, "the export cannot be opened"));
      return false;
    }
    reply(option, OptionReply.export(export.handle().size(), export.flags()));
    if (request.infos().contains(InfoType.NAME)) {
      reply(option, OptionReply.text(InfoType.NAME, name));
    }
    if (request.infos().contains(InfoType.DESCRIPTION) && !export.description().isEmpty()) {
      reply(option, OptionReply.text(InfoType.DESCRIPTION, export.description()));
    }
    if (request.infos().contains(InfoType.BLOCK_SIZE)) {
      reply(option, OptionReply.blockSizes(export.handle().blockSizes()));
    }
    reply(option, OptionReply.of(OptionReplyType.ACK));
    return true;
  }

  /** What a client is told of a failure, which may have come from another server. */
  private static OptionReply refusal(
      IOException failure, OptionReplyType otherwise, String summary) {
    OptionReplyType type = otherwise;
    if (failure instanceof OptionException refused) {
      type =
          switch (refused.type()) {
            case ERR_POLICY, ERR_UNKNOWN, ERR_SHUTDOWN, ERR_PLATFORM -> refused.type();
            default -> otherwise;
          };
    }
    return OptionReply.error(type, NbdException.messageForClient(failure, summary));
  }

  /** Opens an export; a GO gets the very handle that the INFO before it was answered from. */
  private OpenExport open(String name) throws IOException {
    OpenExport present = opened;
    if (present != null && !present.name().equals(name)) {
      opened = null;
      present.handle().close();
      present = null;
    }
    OpenExport export = present == null ? exports.open(name) : present;
    // What was agreed on may have changed since the INFO.
    OpenExport agreed = export.agreed(format, allocationOf.equals(Optional.of(name)));
    opened = agreed;
    return agreed;
  }

  private OpenExport handOver() {
    OpenExport export = opened;
    if (export == null) {
      throw new IllegalStateException("no export is open");
    }
    opened = null;
    return export;
  }

  private ByteBuffer data(OptionRequest option) throws IOException {
    ByteBuffer data = ByteBuffer.allocate((int) option.length());
    in.readFully(data);
    return data.flip();
  }

  private void reply(OptionRequest option, OptionReply reply) throws IOException {
    send(reply.toWire(option.code()));
  }

  private void send(ByteBuffer bytes) throws IOException {
    while (bytes.hasRemaining()) {
      out.write(bytes);
    }
  }
}
