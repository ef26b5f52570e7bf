package nbd.filter;

import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.Fua;

/**
 * What one connection is offered of FUA, and what becomes of it: the one place where the mode and
 * the storage are weighed against each other.
 *
 * @param shown the capabilities that the next one sees
 * @param becomes what a command with FUA becomes
 * @param forced whether every command that changes something is taken for one with FUA
 * @param dropsFlushes whether a flush is answered with success, and nothing else
 */
record FuaDecision(Capabilities shown, Becomes becomes, boolean forced, boolean dropsFlushes) {
  /** What a command with FUA becomes. */
  enum Becomes {
    /** The command with FUA. */
    FUA,
    /** The command without, and then a flush. */
    FLUSH,
    /** The command without. */
    NOTHING
  }

  /**
   * Decides for one connection.
   *
   * @param below the capabilities of its handle
   * @throws NbdException if the mode cannot be had with this handle
   */
  static FuaDecision of(FuaMode mode, Capabilities below) throws NbdException {
    boolean canFlush = below.has(Capability.FLUSH);
    Becomes possible =
        switch (below.fua()) {
          case NATIVE -> Becomes.FUA;
          case EMULATE -> canFlush ? Becomes.FLUSH : Becomes.NOTHING;
          case NONE -> Becomes.NOTHING;
        };
    return switch (mode) {
      case NONE -> passing(below, Becomes.NOTHING);
      case PASS -> passing(below, possible);
      case EMULATE -> passing(below, canFlush ? Becomes.FLUSH : required(mode, below));
      case NATIVE -> passing(below, possible == Becomes.NOTHING ? required(mode, below) : possible);
      case FORCE ->
          new FuaDecision(
              withAll(below),
              possible == Becomes.NOTHING ? required(mode, below) : possible,
              true,
              true);
      case DISCARD -> new FuaDecision(withAll(below), Becomes.NOTHING, false, true);
    };
  }

  /** Whether the handle may as well be used without the filter. */
  boolean changesNothing(Capabilities below) {
    return shown.equals(below) && becomes != Becomes.FLUSH && !forced && !dropsFlushes;
  }

  private static Capabilities withAll(Capabilities below) {
    return below.with(Capability.FLUSH).with(Fua.NATIVE);
  }

  private static FuaDecision passing(Capabilities below, Becomes becomes) {
    Fua fua = becomes == Becomes.NOTHING ? Fua.NONE : Fua.NATIVE;
    return new FuaDecision(below.with(fua), becomes, false, false);
  }

  /** Where nothing is written, nothing is missed. */
  private static Becomes required(FuaMode mode, Capabilities below) throws NbdException {
    if (!below.has(Capability.WRITE)) {
      return Becomes.NOTHING;
    }
    throw new NbdException(
        NbdError.ENOTSUP,
        mode == FuaMode.EMULATE
            ? "the backend has no flush, so FUA cannot be emulated; use --fua=pass or --fua=none"
            : "the backend has neither FUA nor flush; use --fua=pass or --fua=none");
  }
}
