package nbd.transmission;

import java.util.Set;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.ErrorReply;
import nbd.protocol.NbdError;
import nbd.protocol.ReplyFormat;
import nbd.protocol.TransmissionFlag;

/** The protocol's table of errors: finds mistakes in requests before the handle gets them. */
final class RequestCheck {
  /** For each command's code, the flags that a client may set. */
  private final CommandFlags[] allowed = new CommandFlags[Command.values().length];

  /** For each command's code, the error for every request with it, or NONE. */
  private final ErrorReply[] refused = new ErrorReply[Command.values().length];

  private final boolean extended;
  private final BlockSizes blockSizes;
  private final long size;

  RequestCheck(OpenExport export) {
    this.extended = export.format() == ReplyFormat.EXTENDED;
    this.blockSizes = export.handle().blockSizes();
    this.size = export.handle().size();
    Set<TransmissionFlag> offered = export.flags();
    for (Command command : Command.values()) {
      allowed[command.code()] = allowed(command, offered, extended);
      refused[command.code()] = refused(command, offered, !export.contexts().isEmpty());
    }
  }

  private static ErrorReply invalid(String message) {
    return new ErrorReply(NbdError.EINVAL, message);
  }

  private static CommandFlags allowed(
      Command command, Set<TransmissionFlag> offered, boolean extended) {
    CommandFlags flags =
        offered.contains(TransmissionFlag.SEND_FUA)
            ? CommandFlags.of(CommandFlag.FUA)
            : CommandFlags.NONE;
    return switch (command) {
      case READ -> offered.contains(TransmissionFlag.SEND_DF) ? flags.with(CommandFlag.DF) : flags;
      case WRITE -> extended ? flags.with(CommandFlag.PAYLOAD_LEN) : flags;
      case WRITE_ZEROES -> {
        CommandFlags slow = flags.with(CommandFlag.NO_HOLE);
        boolean fast = offered.contains(TransmissionFlag.SEND_FAST_ZERO);
        yield fast ? slow.with(CommandFlag.FAST_ZERO) : slow;
      }
      case BLOCK_STATUS -> {
        CommandFlags all = flags.with(CommandFlag.REQ_ONE);
        boolean filters = offered.contains(TransmissionFlag.BLOCK_STATUS_PAYLOAD);
        yield filters ? all.with(CommandFlag.PAYLOAD_LEN) : all;
      }
      default -> flags;
    };
  }

  private static ErrorReply refused(
      Command command, Set<TransmissionFlag> offered, boolean hasContexts) {
    if (command.writes() && offered.contains(TransmissionFlag.READ_ONLY)) {
      return new ErrorReply(NbdError.EPERM, "the export is read-only");
    }
    if (command == Command.BLOCK_STATUS && !hasContexts) {
      return invalid("no metadata context was selected");
    }
    boolean isOffered =
        switch (command) {
          case READ, WRITE, BLOCK_STATUS, DISC -> true;
          case FLUSH -> offered.contains(TransmissionFlag.SEND_FLUSH);
          case TRIM -> offered.contains(TransmissionFlag.SEND_TRIM);
          case CACHE -> offered.contains(TransmissionFlag.SEND_CACHE);
          case WRITE_ZEROES -> offered.contains(TransmissionFlag.SEND_WRITE_ZEROES);
          case RESIZE -> false;
        };
    return isOffered ? ErrorReply.NONE : invalid("the command was not offered");
  }

  /** Returns the error for a BLOCK_STATUS payload that does not name selected contexts, once. */
  static ErrorReply wrongContexts() {
    return invalid("the payload has to name contexts that were selected, each once");
  }

  /** Returns the error that answers a request's flags, or NONE if the client may set them. */
  ErrorReply checkFlags(Command command, CommandFlags flags) {
    if (extended && command == Command.WRITE && !flags.has(CommandFlag.PAYLOAD_LEN)) {
      return invalid("a write has to say the length of its payload, by the flag PAYLOAD_LEN");
    }
    return flags.within(allowed[command.code()])
        ? ErrorReply.NONE
        : invalid("the command does not take these flags here");
  }

  /**
   * Returns the error that answers a request whose flags are right, or NONE if it may be served.
   *
   * @param offset unsigned
   * @param length of the range, unsigned
   */
  ErrorReply check(Command command, long offset, long length) {
    ErrorReply refusal = refused[command.code()];
    if (refusal.isError()) {
      return refusal;
    }
    if (command == Command.FLUSH) {
      return offset == 0 && length == 0
          ? ErrorReply.NONE
          : invalid("a flush has no offset or length");
    }
    boolean payload = command == Command.READ || command == Command.WRITE;
    int most = blockSizes.maximumPayload();
    if (payload && (length < 0 || length > most)) {
      return invalid("more than " + most + " bytes are not read or written at once");
    }
    if (command == Command.BLOCK_STATUS && length == 0) {
      return invalid("a block status of 0 bytes");
    }
    // Both are unsigned: what is negative here lies far past the end.
    if (offset < 0 || offset > size || length < 0 || length > size - offset) {
      boolean grows = command == Command.WRITE || command == Command.WRITE_ZEROES;
      return new ErrorReply(
          grows ? NbdError.ENOSPC : NbdError.EINVAL,
          "the range ends past the export's end at " + size);
    }
    int unit = blockSizes.minimum();
    return ((offset | length) & (unit - 1)) == 0
        ? ErrorReply.NONE
        : invalid("offset and length have to be multiples of " + unit + " bytes");
  }
}
