package nbd.transmission;

import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlag;
import nbd.protocol.CommandFlags;
import nbd.protocol.ErrorReply;
import nbd.protocol.NbdError;
import nbd.protocol.ReplyFormat;
import nbd.protocol.TransmissionFlag;
import nbd.storage.Handle;

/** The protocol's table of errors: finds mistakes in requests before the handle gets them. */
final class RequestCheck {
  /** The error for a BLOCK_STATUS payload that does not name exactly the one context. */
  static final ErrorReply STATUS_PAYLOAD =
      invalid("the payload has to name the context that was selected, once");

  private static final ErrorReply FLAGS = invalid("the command does not take these flags here");
  private static final ErrorReply NO_PAYLOAD =
      invalid("a write has to say the length of its payload, by the flag PAYLOAD_LEN");
  private static final ErrorReply READ_ONLY =
      new ErrorReply(NbdError.EPERM, "the export is read-only");
  private static final ErrorReply NOT_OFFERED = invalid("the command was not offered");
  private static final ErrorReply NO_CONTEXT = invalid("no metadata context was selected");
  private static final ErrorReply FLUSH_OF_A_RANGE = invalid("a flush has no offset or length");
  private static final ErrorReply STATUS_OF_NOTHING = invalid("a block status of 0 bytes");

  private final Advertised advertised;

  /** For each command's code, the flags that a client may set. */
  private final CommandFlags[] allowed = new CommandFlags[Command.values().length];

  /** For each command's code, the error for every request with it, or NONE. */
  private final ErrorReply[] refused = new ErrorReply[Command.values().length];

  private final boolean extended;
  private final BlockSizes blockSizes;
  private final long size;
  private final ErrorReply tooLong;
  private final ErrorReply pastTheEnd;
  private final ErrorReply noSpace;
  private final ErrorReply misaligned;

  RequestCheck(Handle handle, Advertised advertised) {
    this.advertised = advertised;
    this.extended = advertised.format() == ReplyFormat.EXTENDED;
    this.blockSizes = handle.blockSizes();
    this.size = handle.size();
    int most = blockSizes.maximumPayload();
    this.tooLong = invalid("more than " + most + " bytes are not read or written at once");
    String end = "the range ends past the export's end at " + size;
    this.pastTheEnd = invalid(end);
    this.noSpace = new ErrorReply(NbdError.ENOSPC, end);
    this.misaligned =
        invalid("offset and length have to be multiples of " + blockSizes.minimum() + " bytes");
    for (Command command : Command.values()) {
      allowed[command.code()] = allowed(command);
      refused[command.code()] = refused(command);
    }
  }

  private static ErrorReply invalid(String message) {
    return new ErrorReply(NbdError.EINVAL, message);
  }

  private boolean offers(TransmissionFlag flag) {
    return advertised.flags().contains(flag);
  }

  private CommandFlags allowed(Command command) {
    CommandFlags flags = allowedIf(TransmissionFlag.SEND_FUA, CommandFlags.NONE, CommandFlag.FUA);
    return switch (command) {
      case READ -> allowedIf(TransmissionFlag.SEND_DF, flags, CommandFlag.DF);
      case WRITE -> extended ? flags.with(CommandFlag.PAYLOAD_LEN) : flags;
      case WRITE_ZEROES ->
          allowedIf(
              TransmissionFlag.SEND_FAST_ZERO,
              flags.with(CommandFlag.NO_HOLE),
              CommandFlag.FAST_ZERO);
      case BLOCK_STATUS ->
          allowedIf(
              TransmissionFlag.BLOCK_STATUS_PAYLOAD,
              flags.with(CommandFlag.REQ_ONE),
              CommandFlag.PAYLOAD_LEN);
      default -> flags;
    };
  }

  private CommandFlags allowedIf(TransmissionFlag offer, CommandFlags others, CommandFlag flag) {
    return offers(offer) ? others.with(flag) : others;
  }

  private ErrorReply refused(Command command) {
    if (command.writes() && offers(TransmissionFlag.READ_ONLY)) {
      return READ_ONLY;
    }
    boolean offered =
        switch (command) {
          case READ, WRITE, DISC -> true;
          case FLUSH -> offers(TransmissionFlag.SEND_FLUSH);
          case TRIM -> offers(TransmissionFlag.SEND_TRIM);
          case CACHE -> offers(TransmissionFlag.SEND_CACHE);
          case WRITE_ZEROES -> offers(TransmissionFlag.SEND_WRITE_ZEROES);
          case BLOCK_STATUS -> advertised.allocation();
          case RESIZE -> false;
        };
    ErrorReply missing = command == Command.BLOCK_STATUS ? NO_CONTEXT : NOT_OFFERED;
    return offered ? ErrorReply.NONE : missing;
  }

  /** Returns the error that answers a request's flags, or NONE if the client may set them. */
  ErrorReply checkFlags(Command command, CommandFlags flags) {
    if (extended && command == Command.WRITE && !flags.has(CommandFlag.PAYLOAD_LEN)) {
      return NO_PAYLOAD;
    }
    return flags.within(allowed[command.code()]) ? ErrorReply.NONE : FLAGS;
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
      return offset == 0 && length == 0 ? ErrorReply.NONE : FLUSH_OF_A_RANGE;
    }
    boolean payload = command == Command.READ || command == Command.WRITE;
    if (payload && (length < 0 || length > blockSizes.maximumPayload())) {
      return tooLong;
    }
    if (command == Command.BLOCK_STATUS && length == 0) {
      return STATUS_OF_NOTHING;
    }
    // Both are unsigned: what is negative here lies far past the end.
    if (offset < 0 || offset > size || length < 0 || length > size - offset) {
      boolean grows = command == Command.WRITE || command == Command.WRITE_ZEROES;
      return grows ? noSpace : pastTheEnd;
    }
    boolean aligned = ((offset | length) & (blockSizes.minimum() - 1)) == 0;
    return aligned ? ErrorReply.NONE : misaligned;
  }
}
