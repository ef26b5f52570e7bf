package nbd.client;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import nbd.client.Endpoint.Tcp;
import nbd.client.Endpoint.Unix;
import nbd.client.NbdUri.TlsParameters;
import nbd.protocol.ExportRequest;
import org.jspecify.annotations.Nullable;

/**
 * A parser of NBD URIs. {@link java.net.URI} refuses hosts with an underscore, and decodes before
 * escaped characters can be told apart.
 */
final class UriParser {
  static final String TLS_CERTIFICATES = "tls-certificates";
  static final String TLS_HOSTNAME = "tls-hostname";
  static final String TLS_VERIFY_PEER = "tls-verify-peer";

  private static final Set<String> OF_PRE_SHARED_KEYS = Set.of("tls-psk-file", "tls-username");
  private static final Pattern SCHEME = Pattern.compile("(?i)(nbds?)(\\+unix)?://");

  /** The pattern of RFC 3986, appendix B. */
  private static final Pattern PARTS =
      Pattern.compile("(?s)[^:]*://([^/?#]*)([^?#]*)(?:\\?([^#]*))?(#.*)?");

  private static final Pattern HOST_AND_PORT =
      Pattern.compile("(?:\\[([^]]*)]|([^:\\[\\]]*))(?::(\\d{0,5}))?");

  /** An address in brackets, and a host without them, after decoding. */
  private static final Pattern IPV6_ADDRESS =
      Pattern.compile("[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%[\\w.~-]+)?");

  private static final Pattern HOST = Pattern.compile("[^\\p{Cntrl}\\s:/?#@%\\[\\]]*");

  private final String text;
  private final Map<String, String> parameters = new LinkedHashMap<>();

  UriParser(String text) {
    this.text = text;
  }

  static boolean isUri(String text) {
    return SCHEME.matcher(text).lookingAt();
  }

  NbdUri parse() {
    Matcher scheme = SCHEME.matcher(text);
    Matcher parts = PARTS.matcher(text);
    if (!scheme.lookingAt() || !parts.matches()) {
      throw wrong("it begins with none of nbd://, nbds://, nbd+unix:// and nbds+unix://");
    }
    if (parts.group(4) != null) {
      throw wrong("an NBD URI has no fragment; write # as %23");
    }
    readParameters(parts.group(3));
    boolean tls = "nbds".equals(scheme.group(1).toLowerCase(Locale.ROOT));
    Endpoint endpoint = scheme.group(2) == null ? tcp(parts.group(1)) : unix(parts.group(1));
    NbdUri uri = new NbdUri(endpoint, tls, exportName(parts.group(2)), tlsParameters(tls));
    for (String name : parameters.keySet()) {
      throw wrong(
          OF_PRE_SHARED_KEYS.contains(name)
              ? "the parameter %s is for pre-shared keys, which Java does not support"
                  .formatted(name)
              : "the parameter \"%s\" is not known".formatted(name));
    }
    return uri;
  }

  private IllegalArgumentException wrong(String why) {
    return new IllegalArgumentException("\"%s\": %s".formatted(text, why));
  }

  private void readParameters(@Nullable String query) {
    if (query == null || query.isEmpty()) {
      return;
    }
    for (String parameter : query.split("&")) {
      int equals = parameter.indexOf('=');
      String name = decode(equals < 0 ? parameter : parameter.substring(0, equals));
      String value = equals < 0 ? "" : decode(parameter.substring(equals + 1));
      if (parameters.put(name, value) != null) {
        throw wrong("the parameter \"%s\" appears twice".formatted(name));
      }
    }
  }

  private Endpoint tcp(String authority) {
    if (parameters.containsKey("socket")) {
      throw wrong("the parameter socket is for nbd+unix:// and nbds+unix://");
    }
    if (authority.indexOf('@') >= 0) {
      throw wrong("a user name is only for pre-shared keys, which Java does not support");
    }
    Matcher matcher = HOST_AND_PORT.matcher(authority);
    if (!matcher.matches()) {
      throw noHost(authority);
    }
    String host = decode(matcher.group(1) == null ? matcher.group(2) : matcher.group(1));
    String digits = matcher.group(3);
    int port =
        digits == null || digits.isEmpty() ? Endpoint.DEFAULT_PORT : Integer.parseInt(digits);
    if (port < 1 || port > 65_535) {
      throw wrong("the port %d is not from 1 to 65535".formatted(port));
    }
    if (matcher.group(1) == null && !HOST.matcher(host).matches()) {
      throw noHost(authority);
    }
    if (matcher.group(1) != null && !IPV6_ADDRESS.matcher(host).matches()) {
      throw wrong("\"%s\" is no IPv6 address".formatted(matcher.group(1)));
    }
    return new Tcp(host.isEmpty() ? "localhost" : host, port);
  }

  private IllegalArgumentException noHost(String authority) {
    return wrong(
        "\"%s\" is no host and port; an IPv6 address stands in brackets".formatted(authority));
  }

  private Endpoint unix(String authority) {
    if (!authority.isEmpty()) {
      throw wrong("a Unix socket has no host: write nbd+unix:///EXPORT?socket=PATH");
    }
    String socket = parameters.remove("socket");
    if (socket == null || socket.isEmpty()) {
      throw wrong("the parameter socket is missing: write nbd+unix:///EXPORT?socket=PATH");
    }
    return new Unix(path(socket));
  }

  private Path path(String value) {
    try {
      return Path.of(value);
    } catch (InvalidPathException invalid) {
      throw wrong("\"%s\" is not a file name".formatted(value.replace('\0', '?')));
    }
  }

  private String exportName(String path) {
    String name = decode(path.startsWith("/") ? path.substring(1) : path);
    try {
      return ExportRequest.name(ByteBuffer.wrap(name.getBytes(StandardCharsets.UTF_8)));
    } catch (ExportRequest.MalformedException malformed) {
      throw wrong("as an export's name, " + malformed.reason());
    }
  }

  private TlsParameters tlsParameters(boolean tls) {
    for (String name : Set.of(TLS_CERTIFICATES, TLS_HOSTNAME, TLS_VERIFY_PEER)) {
      if (!tls && parameters.containsKey(name)) {
        throw wrong("the parameter %s is for nbds:// and nbds+unix://".formatted(name));
      }
    }
    return new TlsParameters(
        Optional.ofNullable(parameters.remove(TLS_CERTIFICATES)).map(this::path),
        Optional.ofNullable(parameters.remove(TLS_HOSTNAME)),
        Optional.ofNullable(parameters.remove(TLS_VERIFY_PEER)).map(this::truth));
  }

  private boolean truth(String value) {
    return switch (value.toLowerCase(Locale.ROOT)) {
      case "true", "1", "on", "yes", "t", "y" -> true;
      case "false", "0", "off", "no", "f", "n" -> false;
      default -> throw wrong(TLS_VERIFY_PEER + " is true or false");
    };
  }

  private String decode(String escaped) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    byte[] raw = escaped.getBytes(StandardCharsets.UTF_8);
    for (int i = 0; i < raw.length; i++) {
      if (raw[i] != '%') {
        bytes.write(raw[i]);
        continue;
      }
      int high = i + 2 < raw.length ? Character.digit(raw[i + 1], 16) : -1;
      int low = high < 0 ? -1 : Character.digit(raw[i + 2], 16);
      if (low < 0) {
        throw wrong("a % needs two hexadecimal digits behind it; write % itself as %25");
      }
      bytes.write(16 * high + low);
      i += 2;
    }
    try {
      return StandardCharsets.UTF_8
          .newDecoder()
          .decode(ByteBuffer.wrap(bytes.toByteArray()))
          .toString();
    } catch (CharacterCodingException notUtf8) {
      throw wrong("the escaped bytes are not UTF-8");
    }
  }
}
