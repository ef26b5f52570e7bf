package nbd.multiconn;

import nbd.protocol.NbdError;
import nbd.protocol.NbdException;
import nbd.storage.Capabilities;
import nbd.storage.Capability;
import nbd.storage.ThreadModel;

/**
 * The promise to one connection, and the way it is kept: the one place where mode, backend, thread
 * model and limits are weighed against each other.
 *
 * @param mode the mode of this connection; never {@link MultiConnMode#AUTO}
 * @param shown the capabilities that the client sees
 * @param canFlush whether the handle has flush
 * @param sharesFlush whether a flush of one handle covers all handles of the export name
 * @param flushesBeforeClose whether other connections rely on this one's writes being flushed, so
 *     that it must not close with uncovered ones
 * @param tracksReads whether a flush can ever be needed for the data that this handle has read
 */
record Decision(
    MultiConnMode mode,
    Capabilities shown,
    boolean canFlush,
    boolean sharesFlush,
    boolean flushesBeforeClose,
    boolean tracksReads) {

  /**
   * Decides for one connection.
   *
   * @param backend the capabilities of its handle
   * @param model the thread model that holds for it
   * @throws NbdException if the mode cannot be had with this handle
   */
  static Decision of(MultiConnSettings settings, Capabilities backend, ThreadModel model)
      throws NbdException {
    boolean canFlush = backend.has(Capability.FLUSH);
    boolean multiConn = backend.has(Capability.MULTI_CONN);
    boolean alone = model == ThreadModel.SERIALIZE_CONNECTIONS || settings.singleConnection();
    MultiConnMode mode = resolve(settings.mode(), backend, alone);
    boolean emulates = mode == MultiConnMode.EMULATE;
    if (emulates && !canFlush && backend.has(Capability.WRITE)) {
      throw new NbdException(
          NbdError.ENOTSUP,
          "the backend can be written to but has no flush, so multi-conn cannot be emulated;"
              + " use --multi-conn-mode=disable, or --read-only");
    }
    boolean promised =
        switch (mode) {
          case EMULATE, UNSAFE -> true;
          case PLUGIN -> multiConn;
          case AUTO, DISABLE -> false;
        };
    Capabilities shown =
        promised && !alone
            ? backend.with(Capability.MULTI_CONN)
            : backend.without(Capability.MULTI_CONN);
    if (emulates && canFlush && backend.has(Capability.WRITE)) {
      // A write that the backend alone makes durable would be invisible on other connections.
      shown = shown.without(Capability.FUA);
    }
    boolean sharesFlush = canFlush && shares(settings.tracking(), emulates, multiConn);
    return new Decision(
        mode,
        shown,
        canFlush,
        sharesFlush,
        canFlush && (emulates || multiConn),
        canFlush && tracksReads(settings, sharesFlush));
  }

  private static MultiConnMode resolve(MultiConnMode mode, Capabilities backend, boolean alone) {
    if (mode != MultiConnMode.AUTO) {
      return mode;
    }
    if (alone) {
      return MultiConnMode.DISABLE;
    }
    boolean flushless = !backend.has(Capability.WRITE) && !backend.has(Capability.FLUSH);
    return backend.has(Capability.MULTI_CONN) || flushless
        ? MultiConnMode.PLUGIN
        : MultiConnMode.EMULATE;
  }

  private static boolean shares(TrackDirty tracking, boolean emulates, boolean multiConn) {
    return switch (tracking) {
      case CONNECTION -> multiConn;
      // The meaning of this level: one flush marks all clean, whatever the backend promises.
      case FAST -> multiConn || !emulates;
      // Without tracking, each emulated flush goes to every handle.
      case OFF -> multiConn && !emulates;
    };
  }

  /**
   * Within one export name that shares its flushes no read is ever outdated. Across names a read
   * can be, but only an emulated flush refreshes other names.
   */
  private static boolean tracksReads(MultiConnSettings settings, boolean sharesFlush) {
    boolean mayEmulate =
        settings.mode() == MultiConnMode.EMULATE || settings.mode() == MultiConnMode.AUTO;
    return !sharesFlush || (mayEmulate && !settings.byExportName());
  }
}
