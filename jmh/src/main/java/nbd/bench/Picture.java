package nbd.bench;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * The picture of client flushes per second, as SVG: a bar for each way of keeping connections
 * consistent, grouped by the number of connections, on a logarithmic scale. The number on a bar is
 * its backend flushes for each client flush.
 */
final class Picture {
  private static final int WIDTH = 760;
  private static final int HEIGHT = 380;
  private static final int LEFT = 70;
  private static final int TOP = 50;
  private static final int BOTTOM = 330;
  private static final List<String> COLOURS =
      List.of("#1b6ca8", "#c8553d", "#588157", "#8d6a9f", "#b08900", "#555555");

  private Picture() {}

  static String of(List<Result> results) {
    String time = longestFlush(results);
    List<Result> shown =
        results.stream()
            .filter(result -> result.parameter("pattern").equals("every"))
            .filter(result -> result.parameter("dirty").equals("0"))
            .filter(result -> result.parameter("flushMilliseconds").equals(time))
            .toList();
    List<String> kinds = shown.stream().map(Picture::kind).distinct().toList();
    List<String> connections =
        shown.stream().map(result -> result.parameter("connections")).distinct().toList();
    double most = shown.stream().mapToDouble(r -> r.figure("flushesPerSecond")).max().orElse(10);
    double top = Math.ceil(Math.log10(Math.max(most, 10)));
    StringBuilder svg = new StringBuilder();
    line(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\""
            + " font-size=\"12\">",
        WIDTH,
        HEIGHT);
    line(svg, "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>", WIDTH, HEIGHT);
    line(
        svg,
        "<text x=\"%d\" y=\"20\" font-size=\"14\">Client flushes per second, each connection writes"
            + " and flushes, a backend flush takes %s ms</text>",
        LEFT,
        time);
    drawScale(svg, top);
    drawLegend(svg, kinds);
    double group = (WIDTH - LEFT - 20.0) / Math.max(1, connections.size());
    double bar = group * 0.8 / Math.max(1, kinds.size());
    for (Result result : shown) {
      double x =
          LEFT
              + connections.indexOf(result.parameter("connections")) * group
              + group * 0.1
              + kinds.indexOf(kind(result)) * bar;
      drawBar(svg, result, x, bar, y(result.figure("flushesPerSecond"), top), kinds);
    }
    for (int i = 0; i < connections.size(); i++) {
      text(svg, LEFT + (i + 0.5) * group, BOTTOM + 18, "middle", connections.get(i));
    }
    text(svg, (LEFT + WIDTH) / 2.0, BOTTOM + 38, "middle", "connections");
    return svg.append("</svg>\n").toString();
  }

  private static String longestFlush(List<Result> results) {
    return results.stream()
        .map(result -> result.parameter("flushMilliseconds"))
        .max((one, other) -> Integer.compare(Integer.parseInt(one), Integer.parseInt(other)))
        .orElse("0");
  }

  private static String kind(Result result) {
    String variant = result.parameter("variant");
    return variant.equals("serial")
        ? "serial (one lock)"
        : variant + ", " + result.parameter("tracking").toLowerCase(Locale.ROOT);
  }

  private static void drawScale(StringBuilder svg, double top) {
    for (int power = 1; power <= top; power++) {
      double y = y(Math.pow(10, power), top);
      line(
          svg,
          "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#dddddd\"/>",
          LEFT,
          WIDTH - 20,
          y,
          y);
      text(svg, LEFT - 6, y + 4, "end", String.format(Locale.ROOT, "%,.0f", Math.pow(10, power)));
    }
  }

  private static void drawLegend(StringBuilder svg, List<String> kinds) {
    List<String> drawn = new ArrayList<>();
    for (String kind : kinds) {
      double x = LEFT + 170.0 * drawn.size();
      line(
          svg,
          "<rect x=\"%.1f\" y=\"29\" width=\"11\" height=\"11\" fill=\"%s\"/>",
          x,
          colour(kinds, kind));
      text(svg, x + 16, 39, "start", kind);
      drawn.add(kind);
    }
  }

  private static void drawBar(
      StringBuilder svg, Result result, double x, double width, double y, List<String> kinds) {
    line(
        svg,
        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>",
        x,
        y,
        width * 0.92,
        BOTTOM - y,
        colour(kinds, kind(result)));
    text(
        svg,
        x + width / 2,
        y - 4,
        "middle",
        String.format(Locale.ROOT, "\u00d7%.2f", result.figure("amplification")));
  }

  private static String colour(List<String> kinds, String kind) {
    return COLOURS.get(kinds.indexOf(kind) % COLOURS.size());
  }

  /** Maps a value to the height between 1, at the bottom, and 10 to the power of top. */
  private static double y(double value, double top) {
    return BOTTOM - (BOTTOM - TOP - 10) * Math.log10(Math.max(value, 1)) / top;
  }

  private static void text(StringBuilder svg, double x, double y, String anchor, String text) {
    line(svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>", x, y, anchor, text);
  }

  // Error Prone asks for an annotation from a library that nothing else here needs.
  @SuppressWarnings("AnnotateFormatMethod")
  private static void line(StringBuilder svg, String format, Object... values) {
    svg.append(String.format(Locale.ROOT, format, values)).append('\n');
  }
}
