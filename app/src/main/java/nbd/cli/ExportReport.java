package nbd.cli;

import static java.util.Locale.ROOT;

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import nbd.client.ExportInfo;
import nbd.client.NbdUri;
import nbd.protocol.TransmissionFlag;

/**
 * The description of an export that {@code info} prints, in the fields and the layout of nbdinfo,
 * so that scripts can use either.
 *
 * @param uri the export's URI
 * @param export what the server said when the export was opened
 * @param contexts the metadata contexts that the server has for it
 */
record ExportReport(NbdUri uri, ExportInfo export, List<String> contexts) {
  private static final String SUFFIXES = "KMGTPE";

  /** Makes the first line of the text. */
  String protocolLine() {
    String packets = "simple";
    if (export.extendedHeaders()) {
      packets = "extended";
    } else if (export.structuredReplies()) {
      packets = "structured";
    }
    return "protocol: %s %s TLS, using %s packets\n"
        .formatted(protocol(), uri.tls() ? "with" : "without", packets);
  }

  private String protocol() {
    return export.fixedNewstyle() ? "newstyle-fixed" : "newstyle";
  }

  String text() {
    StringBuilder text = new StringBuilder();
    text.append("export=").append(quoted(export.name())).append(":\n");
    if (!export.description().isEmpty()) {
      line(text, "description", export.description());
    }
    String human = humanSize(export.size());
    line(
        text,
        "export-size",
        export.size() + (human.equals("" + export.size()) ? "" : " (" + human + ")"));
    line(text, "uri", uri);
    if (!contexts.isEmpty()) {
      text.append("\tcontexts:\n");
      contexts.forEach(context -> text.append("\t\t").append(context).append('\n'));
    }
    flags().forEach((name, value) -> line(text, name, value));
    blockSizes().forEach((name, value) -> line(text, name, value));
    return text.toString();
  }

  private static void line(StringBuilder text, String name, Object value) {
    text.append('\t').append(name).append(": ").append(value).append('\n');
  }

  /** Makes the fields that precede the list of exports. */
  String jsonHead() {
    return "\"protocol\": \"%s\",\n\"TLS\": %s,\n\"structured\": %s,\n%s"
        .formatted(
            protocol(),
            uri.tls(),
            export.structuredReplies(),
            export.extendedHeaders() ? "\"extended\": true,\n" : "");
  }

  String json() {
    Map<String, String> fields = new LinkedHashMap<>();
    fields.put("export-name", quoted(export.name()));
    if (!export.description().isEmpty()) {
      fields.put("description", quoted(export.description()));
    }
    fields.put("uri", quoted(uri.toString()));
    if (!contexts.isEmpty()) {
      fields.put(
          "contexts",
          contexts.stream()
              .map(ExportReport::quoted)
              .collect(Collectors.joining(",\n\t\t", "[\n\t\t", "\n\t]")));
    }
    flags().forEach((name, value) -> fields.put(name, value.toString()));
    blockSizes().forEach((name, value) -> fields.put(name, value.toString()));
    fields.put("export-size", "" + export.size());
    fields.put("export-size-str", quoted(humanSize(export.size())));
    return fields.entrySet().stream()
        .map(field -> "\t\"%s\": %s".formatted(field.getKey(), field.getValue()))
        .collect(Collectors.joining(",\n", "\t{\n", "\n\t}"));
  }

  private Map<String, Boolean> flags() {
    Map<String, Boolean> flags = new LinkedHashMap<>();
    flags.put("is_rotational", export.has(TransmissionFlag.ROTATIONAL));
    flags.put("is_read_only", export.has(TransmissionFlag.READ_ONLY));
    Arrays.stream(Ability.values())
        .filter(Ability::isFlag)
        .forEach(flag -> flags.put("can_" + flag.name().toLowerCase(ROOT), flag.isOf(export)));
    return flags;
  }

  private Map<String, Long> blockSizes() {
    Map<String, Long> sizes = new LinkedHashMap<>();
    export
        .serverBlockSizes()
        .ifPresent(
            told -> {
              sizes.put("block_size_minimum", told.minimum());
              sizes.put("block_size_preferred", told.preferred());
              sizes.put("block_size_maximum", told.maximum());
            });
    return sizes;
  }

  /** Writes a size in the largest unit of which it is a whole number. */
  static String humanSize(long size) {
    int unit = size == 0 ? 0 : Math.min(Long.numberOfTrailingZeros(size) / 10, SUFFIXES.length());
    return unit == 0 ? "" + size : (size >> (10 * unit)) + SUFFIXES.substring(unit - 1, unit);
  }

  /** Writes a string as JSON has it. */
  static String quoted(String text) {
    StringBuilder quoted = new StringBuilder("\"");
    text.codePoints()
        .forEach(
            character -> {
              if (character == '"' || character == '\\') {
                quoted.append('\\').appendCodePoint(character);
              } else if (character < ' ' || character == 0x7f) {
                quoted.append("\\u%04x".formatted(character));
              } else {
                quoted.appendCodePoint(character);
              }
            });
    return quoted.append('"').toString();
  }
}
