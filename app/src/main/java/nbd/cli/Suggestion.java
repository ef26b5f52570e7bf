package nbd.cli;

import java.util.Collection;
import java.util.Comparator;
import java.util.Optional;

/** The name that a user who mistyped it may have meant. */
final class Suggestion {
  private Suggestion() {}

  /** Finds the name that the fewest changes lead to; empty if they are more than a third of it. */
  static Optional<String> closest(String typed, Collection<String> names) {
    return names.stream()
        .filter(name -> 3 * distance(typed, name) <= Math.max(typed.length(), name.length()))
        .min(Comparator.comparingInt(name -> distance(typed, name)));
  }

  /** Computes Levenshtein's distance: the letters to insert, drop or replace. */
  private static int distance(String one, String other) {
    int[] row = new int[other.length() + 1];
    for (int column = 0; column < row.length; column++) {
      row[column] = column;
    }
    for (int line = 1; line <= one.length(); line++) {
      int diagonal = row[0];
      row[0] = line;
      for (int column = 1; column < row.length; column++) {
        int above = row[column];
        int replaced = diagonal + (one.charAt(line - 1) == other.charAt(column - 1) ? 0 : 1);
        row[column] = Math.min(replaced, Math.min(above, row[column - 1]) + 1);
        diagonal = above;
      }
    }
    return row[other.length()];
  }
}
