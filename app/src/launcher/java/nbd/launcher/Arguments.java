package nbd.launcher;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static java.nio.charset.StandardCharsets.US_ASCII;
import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.io.UnsupportedEncodingException;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.Charset;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/**
 * The program's arguments as the user gave them.
 *
 * <p>In an ASCII locale (C, POSIX, or one that is not installed) Java replaces every other byte of
 * an argument, and so would open other files and exports than the user named. There the launcher
 * reads the bytes from the system, as UTF-8, and runs the program in a JVM whose locale is {@link
 * #LOCALE}. It refuses arguments that are not text: no Java string stands for them.
 */
final class Arguments {
  /** Set for a program whose arguments were {@link #encoded}. */
  static final String ENCODED_PROPERTY = "nbd.launcher.encoded";

  /**
   * The user's LC_ALL, empty if there was none, for a program that runs with {@link #LOCALE}
   * instead. The command of {@code serve --run} gets it back.
   */
  static final String LC_ALL_PROPERTY = "nbd.launcher.LC_ALL";

  /** The UTF-8 locale that glibc 2.35 and later always have, and Debian before that. */
  static final String LOCALE = "C.UTF-8";

  private static final char REPLACEMENT = '\uFFFD';

  private Arguments() {}

  /** True if this JVM's locale has ASCII characters only. */
  static boolean areAscii() {
    return localeCharset().equals(US_ASCII);
  }

  /** The charset of arguments and file names. */
  private static Charset localeCharset() {
    try {
      return Charset.forName(System.getProperty("sun.jnu.encoding", "UTF-8"));
    } catch (IllegalArgumentException unknown) {
      return UTF_8;
    }
  }

  /**
   * Restores the user's arguments from those that this JVM was given.
   *
   * @throws IllegalArgumentException if one of them is not text; the message is for the user
   */
  static String[] restored(String[] given) throws UnsupportedEncodingException {
    if (Boolean.getBoolean(ENCODED_PROPERTY)) {
      return decoded(given);
    }
    List<String> words = null;
    String[] arguments = given.clone();
    for (int i = 0; i < given.length; i++) {
      if (given[i].indexOf(REPLACEMENT) >= 0) {
        words = words == null ? lastWords(given) : words;
        arguments[i] = text(words.isEmpty() ? null : words.get(i), i + 1);
      }
    }
    return arguments;
  }

  /** Decodes an argument; its bytes are null if the system does not show them. */
  private static String text(String bytes, int number) {
    if (bytes == null) {
      throw new IllegalArgumentException(
          "argument " + number + " cannot be read in this locale; set LC_ALL=" + LOCALE);
    }
    Charset charset = areAscii() ? UTF_8 : localeCharset();
    try {
      return charset.newDecoder().decode(ByteBuffer.wrap(bytes.getBytes(ISO_8859_1))).toString();
    } catch (CharacterCodingException e) {
      throw new IllegalArgumentException(
          "argument " + number + " is not text in " + charset + ": " + escaped(bytes));
    }
  }

  private static String escaped(String bytes) {
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < bytes.length(); i++) {
      char b = bytes.charAt(i);
      if (b >= ' ' && b < 0x7f) {
        text.append(b);
      } else {
        text.append("\\x").append(Integer.toHexString(0x100 | b).substring(1));
      }
    }
    return text.toString();
  }

  /** The last words of the command line; none unless they are the arguments that Java gave. */
  private static List<String> lastWords(String[] given) {
    List<String> words = commandLine();
    int before = words.size() - given.length;
    if (before < 0) {
      return Collections.emptyList();
    }
    List<String> last = words.subList(before, words.size());
    for (int i = 0; i < given.length; i++) {
      if (!inLocale(last.get(i)).equals(given[i])) {
        return Collections.emptyList();
      }
    }
    return last;
  }

  private static String inLocale(String bytes) {
    return new String(bytes.getBytes(ISO_8859_1), localeCharset());
  }

  /** True if a JVM of another locale would be given other arguments. */
  static boolean needEncoding(String[] arguments) {
    for (String argument : arguments) {
      if (!isAscii(argument)) {
        return true;
      }
    }
    return false;
  }

  /** True if the text has ASCII characters only. */
  static boolean isAscii(String text) {
    return US_ASCII.newEncoder().canEncode(text);
  }

  /** Encodes the arguments in ASCII, which reaches a JVM of any locale. */
  @SuppressWarnings("JdkObsolete") // Java 8 takes the charset by its name only
  static List<String> encoded(String[] arguments) throws UnsupportedEncodingException {
    List<String> encoded = new ArrayList<>();
    for (String argument : arguments) {
      encoded.add(URLEncoder.encode(argument, "UTF-8"));
    }
    return encoded;
  }

  @SuppressWarnings("JdkObsolete") // Java 8 takes the charset by its name only
  private static String[] decoded(String[] given) throws UnsupportedEncodingException {
    if (areAscii()) {
      throw new IllegalArgumentException(
          "the locale "
              + LOCALE
              + " is not installed; for names with characters outside ASCII, set LC_ALL to one of"
              + " UTF-8 that is");
    }
    String[] arguments = new String[given.length];
    for (int i = 0; i < given.length; i++) {
      arguments[i] = URLDecoder.decode(given[i], "UTF-8");
    }
    return arguments;
  }

  /**
   * Finds the options between {@code java} and {@code -jar}, such as {@code -Xmx1g}; none where the
   * system does not show command lines.
   */
  static List<String> jvmOptions() {
    List<String> words = commandLine();
    List<String> options = new ArrayList<>();
    int end = words.indexOf("-jar");
    for (int i = 1; i < end; i++) {
      options.add(inLocale(words.get(i)));
    }
    return options;
  }

  /**
   * Reads the words with which this process was started; each character stands for a byte. There
   * are none where the system does not show them.
   */
  private static List<String> commandLine() {
    try {
      byte[] bytes = Files.readAllBytes(Paths.get("/proc/self/cmdline"));
      // Behind the zero byte that ends the last word, split finds an empty one.
      String[] words = new String(bytes, ISO_8859_1).split("\0", -1);
      return Arrays.asList(words).subList(0, words.length - 1);
    } catch (IOException noProc) {
      return Collections.emptyList();
    }
  }
}
