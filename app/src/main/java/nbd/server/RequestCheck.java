package nbd.server;

import nbd.backend.Handle;
import nbd.protocol.BlockSizes;
import nbd.protocol.Command;
import nbd.protocol.CommandFlags;
import nbd.protocol.NbdError;
import nbd.protocol.RequestHeader;

/** What is wrong with a request, before the handle sees it: the protocol's table of errors. */
final class RequestCheck {
  private final Advertised advertised;
  private final BlockSizes blockSizes;
  private final long size;

  RequestCheck(Handle handle, Advertised advertised) {
    this.advertised = advertised;
    this.blockSizes = handle.blockSizes();
    this.size = handle.size();
  }

  /** The error that answers the request, or NONE if it may be served. */
  NbdError check(Command command, RequestHeader request) {
    if (!CommandFlags.of(request.flags()).within(advertised.allowed(command))) {
      return NbdError.EINVAL;
    }
    if (command.writes() && advertised.readOnly()) {
      return NbdError.EPERM;
    }
    if (!advertised.understands(command)) {
      return NbdError.EINVAL;
    }
    if (command == Command.FLUSH) {
      return request.offset() == 0 && request.length() == 0 ? NbdError.NONE : NbdError.EINVAL;
    }
    boolean payload = command == Command.READ || command == Command.WRITE;
    if (payload && request.length() > blockSizes.maximumPayload()) {
      return NbdError.EINVAL;
    }
    return checkRange(command, request.offset(), request.length());
  }

  private NbdError checkRange(Command command, long offset, long length) {
    // The offset is unsigned: what is negative here lies far past the end.
    if (offset < 0 || offset > size || length > size - offset) {
      boolean grows = command == Command.WRITE || command == Command.WRITE_ZEROES;
      return grows ? NbdError.ENOSPC : NbdError.EINVAL;
    }
    boolean aligned = ((offset | length) & (blockSizes.minimum() - 1)) == 0;
    return aligned ? NbdError.NONE : NbdError.EINVAL;
  }
}
