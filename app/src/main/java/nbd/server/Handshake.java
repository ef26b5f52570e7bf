package nbd.server;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
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
import nbd.storage.ListedExport;
import nbd.transmission.MetaContext;
import nbd.transmission.OpenExport;
import org.jspecify.annotations.Nullable;
import org.tinylog.Logger;

/**
 * The handshake of one connection, run by its thread: fixed newstyle, until the client has chosen
 * an export or leaves.
 */
final class Handshake {
  /** The longest option data that is read and dropped; longer data ends the connection. */
  private static final long DROPPED_DATA = 32L << 20;

  private static final int EXPORT_NAME_PADDING = 124;

  /** Limits the log lines of a client that asks for one name after the other. */
  private static final int MOST_REFUSALS_LOGGED = 10;

  /** Stands for options that the protocol does not define: both are unsupported. */
  private static final Option UNSUPPORTED = Option.PEEK_EXPORT;

  /** The options that are answered before TLS, and whatever their length. */
  private static final Set<Option> ALWAYS_ANSWERED =
      Set.of(Option.EXPORT_NAME, Option.ABORT, Option.STARTTLS);

  private final String peer;
  private final Wire wire;
  private final ExportView exports;
  private final Export.Client client;
  private final TlsPolicy tls;

  private boolean fixed;
  private boolean padding;
  private String lastRefusal = "";
  private int refusals;

  private ReplyFormat format = ReplyFormat.SIMPLE;

  /** The names of the metadata contexts that the client has selected, for one export. */
  private Set<String> selected = Set.of();

  private String selectedFor = "";

  /** The export that was opened last; its handle is owned here until {@link #handOver}. */
  private @Nullable OpenExport opened;

  /** Thrown to refuse an option, with a message for the client. */
  private static final class Refusal extends Exception {
    private static final long serialVersionUID = 1;

    private final OptionReplyType type;
    private final String message;

    /** The message for the log; empty if there is none. */
    private final String logged;

    Refusal(OptionReplyType type, String message) {
      this(type, message, "");
    }

    Refusal(OptionReplyType type, String message, String logged) {
      super(message, null, false, false);
      this.type = type;
      this.message = message;
      this.logged = logged;
    }
  }

  /** Begins with a client that has sent nothing yet, on a wire without TLS. */
  Handshake(String peer, Wire wire, ExportView exports, Export.Client client, TlsPolicy tls) {
    this.peer = peer;
    this.wire = wire;
    this.exports = exports;
    this.client = client;
    this.tls = tls;
  }

  /**
   * Begins again inside TLS. Nothing that was agreed on before may count, because a man in the
   * middle may have agreed on it. Only the client's flags stay, which are not sent again.
   */
  private Handshake(Handshake before) {
    this(before.peer, before.wire, before.exports, before.client, before.tls);
    this.fixed = before.fixed;
    this.padding = before.padding;
    this.lastRefusal = before.lastRefusal;
    this.refusals = before.refusals;
  }

  /**
   * Negotiates.
   *
   * @return the export for the transmission phase, whose handle the caller closes; empty if the
   *     client left
   * @throws IOException why the connection has to end; no handle is left open then
   */
  Optional<OpenExport> run() throws IOException {
    greet();
    return options();
  }

  private void greet() throws IOException {
    int offered = HandshakeFlag.ALL;
    send(
        ByteBuffer.allocate(18)
            .putLong(Magic.GREETING)
            .putLong(Magic.OPTION)
            .putShort((short) offered)
            .flip());
    if (!wire.in().fill(4)) {
      throw new EOFException("disconnected before the handshake");
    }
    int flags = wire.in().buffer().getInt();
    if ((flags & ~offered) != 0) {
      throw new ProtocolException(
          "unknown client flags 0x%08x (not an NBD client?)".formatted(flags));
    }
    fixed = HandshakeFlag.FIXED_NEWSTYLE.isIn(flags);
    padding = !HandshakeFlag.NO_ZEROES.isIn(flags);
  }

  private Optional<OpenExport> options() throws IOException {
    try {
      while (true) {
        OptionRequest request = OptionRequest.read(wire.in());
        Option option = Option.of(request.code()).orElse(UNSUPPORTED);
        if (answer(request, option)) {
          switch (option) {
            case EXPORT_NAME, GO -> {
              return Optional.of(handOver());
            }
            case STARTTLS -> {
              return new Handshake(this).options();
            }
            case ABORT -> {
              return Optional.empty();
            }
            default -> {}
          }
        }
      }
    } finally {
      closeOpened();
    }
  }

  private void closeOpened() throws IOException {
    OpenExport export = opened;
    opened = null;
    if (export != null) {
      export.close();
    }
  }

  private OpenExport handOver() {
    OpenExport export = opened;
    if (export == null) {
      throw new IllegalStateException("no export is open");
    }
    opened = null;
    return export;
  }

  /** Answers an option; false if it is refused. */
  private boolean answer(OptionRequest request, Option option) throws IOException {
    try {
      perform(request, option);
      return true;
    } catch (MalformedException malformed) {
      reply(request, OptionReply.error(OptionReplyType.ERR_INVALID, malformed.reason()));
    } catch (Refusal refusal) {
      log(refusal.logged);
      reply(request, OptionReply.error(refusal.type, refusal.message));
    }
    return false;
  }

  /** Logs why a client does not get what it asked for, unless it only asks again. */
  private void log(String refusal) {
    boolean isNew = !refusal.isEmpty() && !refusal.equals(lastRefusal);
    if (isNew && refusals < MOST_REFUSALS_LOGGED) {
      lastRefusal = refusal;
      refusals++;
      Logger.warn("{}: refused, {}", peer, refusal);
    }
  }

  private void perform(OptionRequest request, Option option)
      throws IOException, Refusal, MalformedException {
    if (!fixed && option != Option.EXPORT_NAME) {
      throw new ProtocolException("an option without fixed newstyle: " + request.code());
    }
    boolean needsTls = tls.required() && !wire.isSecure();
    if (needsTls && !ALWAYS_ANSWERED.contains(option)) {
      drop(request);
      throw new Refusal(
          OptionReplyType.ERR_TLS_REQD, "this server requires TLS: send STARTTLS first");
    }
    if (request.length() > ExportRequest.MAXIMUM_BYTES && !ALWAYS_ANSWERED.contains(option)) {
      drop(request);
      throw new Refusal(
          OptionReplyType.ERR_TOO_BIG,
          "the option's data is longer than " + ExportRequest.MAXIMUM_BYTES + " bytes");
    }
    switch (option) {
      case EXPORT_NAME -> exportName(request, needsTls);
      case ABORT -> abort(request);
      case LIST -> list(request);
      case PEEK_EXPORT -> {
        drop(request);
        throw new Refusal(
            OptionReplyType.ERR_UNSUP, "option " + request.code() + " is not supported");
      }
      case STARTTLS -> startTls(request);
      case INFO, GO -> describe(request);
      case STRUCTURED_REPLY, EXTENDED_HEADERS -> agree(request, option);
      case LIST_META_CONTEXT, SET_META_CONTEXT ->
          metaContext(request, option == Option.SET_META_CONTEXT);
    }
  }

  /** Answers EXPORT_NAME, which has no error replies: a refusal ends the connection. */
  private void exportName(OptionRequest request, boolean needsTls) throws IOException {
    if (needsTls) {
      throw new ProtocolException("EXPORT_NAME without TLS, which is required");
    }
    if (format == ReplyFormat.EXTENDED) {
      throw new ProtocolException("EXPORT_NAME after EXTENDED_HEADERS");
    }
    if (request.length() > ExportRequest.MAXIMUM_NAME_BYTES) {
      throw new ProtocolException("an export name of " + request.length() + " bytes");
    }
    OpenExport export;
    try {
      export = open(exports.resolve(ExportRequest.name(data(request))));
    } catch (MalformedException malformed) {
      throw new ProtocolException("EXPORT_NAME: " + malformed.reason());
    } catch (Refusal refusal) {
      throw new ProtocolException("EXPORT_NAME: " + refusal.logged);
    }
    ByteBuffer reply = ByteBuffer.allocate(10 + (padding ? EXPORT_NAME_PADDING : 0));
    reply.putLong(0, export.handle().size());
    reply.putShort(8, TransmissionFlag.toWire(export.flags()));
    send(reply);
  }

  private void abort(OptionRequest request) throws IOException {
    wire.in().skip(Math.min(request.length(), DROPPED_DATA));
    try {
      acknowledge(request);
    } catch (IOException alreadyGone) {
      Logger.debug("{}: gone before its ABORT was answered", peer);
    }
  }

  private void startTls(OptionRequest request) throws IOException, Refusal {
    requireNoData(request);
    if (wire.isSecure()) {
      throw new Refusal(OptionReplyType.ERR_INVALID, "TLS has already been started");
    }
    if (tls.server().isEmpty()) {
      throw new Refusal(OptionReplyType.ERR_POLICY, "this server was started without TLS");
    }
    wire.requireNothingAhead();
    closeOpened();
    acknowledge(request);
    Logger.debug("{}: {}", peer, wire.startTls(tls.server().get()).agreed());
  }

  private void agree(OptionRequest request, Option option) throws IOException, Refusal {
    requireNoData(request);
    if (option == Option.EXTENDED_HEADERS) {
      format = ReplyFormat.EXTENDED;
    } else if (format == ReplyFormat.EXTENDED) {
      throw new Refusal(
          OptionReplyType.ERR_EXT_HEADER_REQD, "extended headers have already been agreed on");
    } else {
      format = ReplyFormat.STRUCTURED;
    }
    acknowledge(request);
  }

  private void metaContext(OptionRequest request, boolean select)
      throws IOException, Refusal, MalformedException {
    if (select) {
      selected = Set.of();
    }
    ByteBuffer data = data(request);
    if (!format.hasChunks()) {
      throw new Refusal(
          OptionReplyType.ERR_INVALID, "contexts need STRUCTURED_REPLY or EXTENDED_HEADERS first");
    }
    MetaContextRequest question = MetaContextRequest.parse(data);
    String export = exports.resolve(question.name());
    requireKnown(export);
    Optional<String> bitmap = dirtyBitmap(export, question, select);
    Set<String> matched = new HashSet<>();
    for (MetaContext context : MetaContext.values()) {
      Optional<String> name =
          context
              .name(bitmap)
              .filter(
                  each ->
                      select ? question.selects(each) : question.lists(each, context.wildcards()));
      if (name.isPresent()) {
        matched.add(name.get());
        reply(request, OptionReply.metaContext(select ? context.id() : 0, name.get()));
      }
    }
    if (select) {
      selected = matched;
      selectedFor = export;
    }
    acknowledge(request);
  }

  /**
   * Returns the name of the export's dirty bitmap, if the queries may name it. Only the storage
   * knows it, and opening that may be slow: clients that do not ask do not wait.
   */
  private Optional<String> dirtyBitmap(String export, MetaContextRequest question, boolean select)
      throws IOException, Refusal {
    boolean mayName = select ? question.maySelectBitmap() : question.mayListBitmap();
    return mayName ? open(export).handle().facts().dirtyBitmap() : Optional.empty();
  }

  private void list(OptionRequest request) throws IOException, Refusal {
    requireNoData(request);
    List<ListedExport> list;
    try {
      list = exports.list();
    } catch (IOException failure) {
      String what = "the exports cannot be listed";
      throw refusal(failure, OptionReplyType.ERR_PLATFORM, what, what);
    }
    for (ListedExport export : list) {
      reply(request, OptionReply.server(export.name(), export.description()));
    }
    acknowledge(request);
  }

  private void describe(OptionRequest request) throws IOException, Refusal, MalformedException {
    ExportRequest question = ExportRequest.parse(data(request));
    OpenExport export = open(exports.resolve(question.name()));
    Set<InfoType> infos = question.infos();
    reply(request, OptionReply.export(export.handle().size(), export.flags()));
    if (infos.contains(InfoType.NAME)) {
      reply(request, OptionReply.text(InfoType.NAME, export.name()));
    }
    if (infos.contains(InfoType.DESCRIPTION) && !export.description().isEmpty()) {
      reply(request, OptionReply.text(InfoType.DESCRIPTION, export.description()));
    }
    if (infos.contains(InfoType.BLOCK_SIZE)) {
      reply(request, OptionReply.blockSizes(export.handle().blockSizes()));
    }
    acknowledge(request);
  }

  private void requireKnown(String name) throws Refusal {
    if (!exports.mayKnow(name)) {
      String why = exports.unknown(name);
      throw new Refusal(OptionReplyType.ERR_UNKNOWN, why + "; LIST names the exports", why);
    }
  }

  /** Opens an export; GO uses the handle that an option before it has opened. */
  private OpenExport open(String name) throws IOException, Refusal {
    requireKnown(name);
    if (opened != null && !opened.name().equals(name)) {
      closeOpened();
    }
    OpenExport export = opened == null ? openAnew(name) : opened;
    // More may have been agreed on since it was opened.
    OpenExport agreed = export.agreed(format, selectedFor.equals(name) ? selected : Set.of());
    opened = agreed;
    return agreed;
  }

  private OpenExport openAnew(String name) throws Refusal {
    try {
      return exports.open(name, client);
    } catch (IOException failure) {
      throw refusal(
          failure,
          OptionReplyType.ERR_UNKNOWN,
          "the export cannot be opened",
          "export \"" + Printable.name(name) + "\" cannot be opened");
    }
  }

  /**
   * Makes a refusal of a failure of the storage, which may be another server's.
   *
   * @param otherwise the error, if the failure has none that a client can use
   */
  private static Refusal refusal(
      IOException failure, OptionReplyType otherwise, String message, String logged) {
    OptionReplyType type = otherwise;
    if (failure instanceof OptionException refused) {
      type =
          switch (refused.type()) {
            case ERR_POLICY, ERR_UNKNOWN, ERR_SHUTDOWN, ERR_PLATFORM -> refused.type();
            default -> otherwise;
          };
    }
    String reason = Printable.sentence(String.valueOf(failure.getMessage()));
    return new Refusal(
        type, NbdException.messageForClient(failure, message), logged + ": " + reason);
  }

  private void requireNoData(OptionRequest request) throws IOException, Refusal {
    if (request.length() > 0) {
      drop(request);
      throw new Refusal(OptionReplyType.ERR_INVALID, "the option takes no data");
    }
  }

  private void drop(OptionRequest request) throws IOException {
    if (request.length() > DROPPED_DATA) {
      throw new ProtocolException(
          "option %d with %d bytes".formatted(request.code(), request.length()));
    }
    wire.in().skip(request.length());
  }

  /** Reads the data, whose length was checked. */
  private ByteBuffer data(OptionRequest request) throws IOException {
    ByteBuffer data = ByteBuffer.allocate((int) request.length());
    wire.in().readFully(data);
    return data.flip();
  }

  private void acknowledge(OptionRequest request) throws IOException {
    reply(request, OptionReply.of(OptionReplyType.ACK));
  }

  private void reply(OptionRequest request, OptionReply reply) throws IOException {
    send(reply.toWire(request.code()));
  }

  private void send(ByteBuffer bytes) throws IOException {
    while (bytes.hasRemaining()) {
      wire.out().write(bytes);
    }
  }
}
