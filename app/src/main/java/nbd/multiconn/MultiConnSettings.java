package nbd.multiconn;

/**
 * What the user chose for {@link MultiConnFilter}.
 *
 * @param mode what is promised
 * @param tracking how closely it is followed who needs a flush
 * @param byExportName whether only the connections to the same export name are kept consistent; if
 *     not, all are
 * @param singleConnection whether the server takes one connection at a time, so that a promise
 *     about several is of no use to anybody
 */
public record MultiConnSettings(
    MultiConnMode mode, TrackDirty tracking, boolean byExportName, boolean singleConnection) {
  /** What holds where the user says nothing. */
  public static final MultiConnSettings DEFAULT =
      new MultiConnSettings(MultiConnMode.AUTO, TrackDirty.CONNECTION, false, false);

  /** The same with another mode. */
  public MultiConnSettings with(MultiConnMode other) {
    return new MultiConnSettings(other, tracking, byExportName, singleConnection);
  }
}
