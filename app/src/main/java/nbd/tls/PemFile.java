package nbd.tls;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.AccessDeniedException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A file of PEM blocks (RFC 7468). The text around them, in which certtool and openssl describe
 * them, is ignored.
 *
 * @param path of the file, for messages
 * @param blocks in their order
 */
record PemFile(Path path, List<Block> blocks) {
  static final String CERTIFICATE = "CERTIFICATE";
  static final String CRL = "X509 CRL";

  private static final String BEGIN = "-----BEGIN ";
  private static final Pattern BLOCK =
      Pattern.compile("(?s)-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \\1-----");

  /**
   * A block of a file, between two lines of dashes.
   *
   * @param label the kind of content, such as {@code CERTIFICATE}
   * @param encrypted whether the block says that it is encrypted; {@code der} is empty then
   * @param der the content
   */
  @SuppressWarnings("ArrayRecordComponent") // never compared
  record Block(String label, boolean encrypted, byte[] der) {}

  /**
   * Reads a file.
   *
   * @throws CertificateFileException if it is missing, unreadable or damaged
   */
  static PemFile read(Path path) throws CertificateFileException {
    String text;
    try {
      // Decodes any bytes; the blocks themselves are ASCII.
      text = Files.readString(path, StandardCharsets.ISO_8859_1);
    } catch (NoSuchFileException missing) {
      throw new CertificateFileException(path, "does not exist", missing);
    } catch (AccessDeniedException denied) {
      throw new CertificateFileException(path, "permission denied", denied);
    } catch (IOException failure) {
      throw new CertificateFileException(path, "cannot be read: " + failure.getMessage(), failure);
    }
    List<Block> blocks = new ArrayList<>();
    Matcher matcher = BLOCK.matcher(text);
    int end = 0;
    while (matcher.find()) {
      checkNoneBegins(path, text.substring(end, matcher.start()));
      end = matcher.end();
      blocks.add(block(path, matcher.group(1), matcher.group(2)));
    }
    checkNoneBegins(path, text.substring(end));
    return new PemFile(path, List.copyOf(blocks));
  }

  private static void checkNoneBegins(Path path, String between) throws CertificateFileException {
    if (between.contains(BEGIN)) {
      throw new CertificateFileException(
          path, "a block begins (" + BEGIN.strip() + ") and does not end");
    }
  }

  private static Block block(Path path, String label, String body) throws CertificateFileException {
    // OpenSSL's older format says in a header that the key is encrypted.
    boolean encrypted = label.startsWith("ENCRYPTED") || body.contains("ENCRYPTED");
    if (encrypted) {
      return new Block(label, true, new byte[0]);
    }
    try {
      return new Block(label, false, Base64.getMimeDecoder().decode(body.strip()));
    } catch (IllegalArgumentException damaged) {
      throw new CertificateFileException(
          path, "the block " + label + " is damaged: " + damaged.getMessage(), damaged);
    }
  }

  /** Finds the blocks with a label. */
  List<Block> all(String label) {
    return blocks.stream().filter(block -> block.label().equals(label)).toList();
  }
}
