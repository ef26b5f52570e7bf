package nbd.cli;

import java.util.ArrayList;
import java.util.List;

/** Lines of words in columns, each as wide as its widest word. */
final class TextTable {
  private static final String GAP = "  ";

  private final List<String[]> rows = new ArrayList<>();

  /** Begins with the columns' headings. */
  TextTable(String... headings) {
    rows.add(headings);
  }

  /** Adds a line, with a word for each column. */
  void add(String... words) {
    rows.add(words);
  }

  /** Returns the lines, each with its end. */
  String text() {
    int columns = rows.getFirst().length;
    int[] widths = new int[columns];
    for (String[] row : rows) {
      for (int i = 0; i < columns; i++) {
        widths[i] = Math.max(widths[i], row[i].length());
      }
    }
    StringBuilder text = new StringBuilder();
    for (String[] row : rows) {
      StringBuilder line = new StringBuilder();
      for (int i = 0; i < columns; i++) {
        line.append(row[i]).append(" ".repeat(widths[i] - row[i].length())).append(GAP);
      }
      text.append(line.toString().stripTrailing()).append('\n');
    }
    return text.toString();
  }
}
