package nbd.check;

import java.io.IOException;
import java.util.List;

/**
 * An examination of a server for abilities that it advertises and does not have, and for answers
 * that the protocol does not allow. It makes a few requests, one after the other, and so needs no
 * luck, unlike the random histories. It overwrites the beginning of the target's region, changes
 * nothing outside of it, and expects that nobody else writes there meanwhile.
 */
public final class Advertised {
  private Advertised() {}

  /**
   * Examines a server; takes a second or two. Requests that a server has to refuse come last, since
   * some servers end over them.
   *
   * @throws IOException if the server cannot be connected to
   */
  public static List<Finding> examine(Target target) throws IOException {
    Findings findings = new Findings(target.uri());
    examine(target, findings);
    return findings.all();
  }

  /** Examines a server, as above; adds each finding at once. */
  static void examine(Target target, Findings findings) throws IOException {
    boolean servesSeveral = new Descriptions(target, findings).examine();
    try (Abilities abilities = new Abilities(target, servesSeveral, findings)) {
      abilities.examine();
    }
  }
}
