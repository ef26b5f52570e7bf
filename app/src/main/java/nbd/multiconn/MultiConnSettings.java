package nbd.multiconn;

/**
 * The user's choices for {@link MultiConnFilter}.
 *
 * @param mode the promise
 * @param tracking how precisely it is tracked which connections need a flush
 * @param byExportName whether only connections to the same export name are kept consistent; if not,
 *     all connections are
 * @param singleConnection whether the server takes one connection at a time, so that no client
 *     could use a promise about several
 */
public record MultiConnSettings(
    MultiConnMode mode, TrackDirty tracking, boolean byExportName, boolean singleConnection) {
  /** The settings of a user who chooses nothing. */
  public static final MultiConnSettings DEFAULT =
      new MultiConnSettings(MultiConnMode.AUTO, TrackDirty.CONNECTION, false, false);

  /** The same with another mode. */
  public MultiConnSettings with(MultiConnMode other) {
    return new MultiConnSettings(other, tracking, byExportName, singleConnection);
  }
}
