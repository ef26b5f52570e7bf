package nbd.transmission;

import java.util.function.Function;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.ErrorReply;
import nbd.protocol.NbdError;
import nbd.storage.Handle;

/** What is wrong with a request, before the handle sees it: the protocol's table of errors. */
final class RequestCheck {
  private static final ErrorReply FLAGS = invalid("the command does not take these flags here");
  private static final ErrorReply NO_PAYLOAD =
      invalid("a write has to say the length of its payload, by the flag PAYLOAD_LEN");
  private static final ErrorReply READ_ONLY =
      new ErrorReply(NbdError.EPERM, "the export is read-only");
  private static final ErrorReply NOT_OFFERED = invalid("the command was not offered");
  private static final ErrorReply NO_CONTEXT = invalid("no metadata context was selected");
  private static final ErrorReply FLUSH_OF_A_RANGE = invalid("a flush has no offset or length");
  private static final ErrorReply STATUS_OF_NOTHING = invalid("a block status of 0 bytes");
  private static final ErrorReply STATUS_PAYLOAD =
      invalid("the payload has to name the context that was selected, once");

  private final Advertised advertised;
  private final CommandFlags[] required;
  private final CommandFlags[] allowed;
  private final BlockSizes blockSizes;
  private final long size;
  private final ErrorReply tooLong;
  private final ErrorReply pastTheEnd;
  private final ErrorReply noSpace;
  private final ErrorReply misaligned;

  RequestCheck(Handle handle, Advertised advertised) {
    this.advertised = advertised;
    this.required = each(advertised::required);
    this.allowed = each(advertised::allowed);
    this.blockSizes = handle.blockSizes();
    this.size = handle.size();
    int most = blockSizes.maximumPayload();
    this.tooLong = invalid("more than " + most + " bytes are not read or written at once");
    String end = "the range ends past the export's end at " + size;
    this.pastTheEnd = invalid(end);
    this.noSpace = new ErrorReply(NbdError.ENOSPC, end);
    this.misaligned =
        invalid("offset and length have to be multiples of " + blockSizes.minimum() + " bytes");
  }

  /** The answer for each command, by its number: asked for every request. */
  private static CommandFlags[] each(Function<Command, CommandFlags> question) {
    CommandFlags[] answers = new CommandFlags[Command.values().length];
    for (Command command : Command.values()) {
      answers[command.code()] = question.apply(command);
    }
    return answers;
  }

  private static ErrorReply invalid(String message) {
    return new ErrorReply(NbdError.EINVAL, message);
  }

  /** The error for a BLOCK_STATUS payload that does not name exactly the selected context. */
  ErrorReply blockStatusPayload() {
    return STATUS_PAYLOAD;
  }

  /** The error that answers a request's flags, or NONE if they may be used. */
  ErrorReply checkFlags(Command command, CommandFlags flags) {
    if (!required[command.code()].within(flags)) {
      return NO_PAYLOAD;
    }
    return flags.within(allowed[command.code()]) ? ErrorReply.NONE : FLAGS;
  }

  /**
   * The error that answers a request whose flags are right, or NONE if it may be served.
   *
   * @param offset unsigned
   * @param length of what the command works on, unsigned
   */
  ErrorReply check(Command command, long offset, long length) {
    if (command.writes() && advertised.readOnly()) {
      return READ_ONLY;
    }
    if (!advertised.understands(command)) {
      return command == Command.BLOCK_STATUS ? NO_CONTEXT : NOT_OFFERED;
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
    return checkRange(command, offset, length);
  }

  private ErrorReply checkRange(Command command, long offset, long length) {
    // Both are unsigned: what is negative here lies far past the end.
    if (offset < 0 || offset > size || length < 0 || length > size - offset) {
      boolean grows = command == Command.WRITE || command == Command.WRITE_ZEROES;
      return grows ? noSpace : pastTheEnd;
    }
    boolean aligned = ((offset | length) & (blockSizes.minimum() - 1)) == 0;
    return aligned ? ErrorReply.NONE : misaligned;
  }
}
