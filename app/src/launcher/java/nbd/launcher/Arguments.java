package nbd.launcher;

import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UnsupportedEncodingException;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.Charset;
import java.nio.charset.IllegalCharsetNameException;
import java.nio.charset.UnsupportedCharsetException;
import java.util.ArrayList;
import java.util.List;

/**
 * The program's arguments as the user gave them.
 *
 * <p>In a locale of ASCII (C, POSIX, or one that is not installed) Java replaces every other byte
 * of an argument, and so names other files and exports than the user. There the bytes are read from
 * the system, as UTF-8, and the program runs in a JVM whose locale is {@link #LOCALE}. An argument
 * whose bytes are no characters is refused: no Java string stands for it.
 */
final class Arguments {
  /** Set for a program whose arguments were {@link #encoded}. */
  static final String ENCODED_PROPERTY = "nbd.launcher.encoded";

  /**
   * The user's LC_ALL, empty if there was none, for a program that runs with {@link #LOCALE}
   * instead. The command of {@code serve --run} gets it back.
   */
  static final String LC_ALL_PROPERTY = "nbd.launcher.LC_ALL";

  /** The locale of UTF-8 that glibc 2.35 and later always have, and Debian before that. */
  static final String LOCALE = "C.UTF-8";

  private static final char REPLACEMENT = '\uFFFD';
  private static final Charset ASCII = Charset.forName("US-ASCII");
  private static final Charset UTF_8 = Charset.forName("UTF-8");

  private Arguments() {}

  /** Whether this JVM's locale has no characters but those of ASCII. */
  static boolean areAscii() {
    return localeCharset().equals(ASCII);
  }

  /** The charset of arguments and file names. */
  private static Charset localeCharset() {
    try {
      return Charset.forName(System.getProperty("sun.jnu.encoding", "UTF-8"));
    } catch (IllegalCharsetNameException e) {
      return UTF_8;
    } catch (UnsupportedCharsetException e) {
      return UTF_8;
    }
  }

  /**
   * Restores the user's arguments.
   *
   * @param given by this JVM
   * @throws IllegalArgumentException if one of them is no text; the message is for the user
   */
  static String[] restored(String[] given) throws UnsupportedEncodingException {
    if (Boolean.getBoolean(ENCODED_PROPERTY)) {
      return decoded(given);
    }
    List<byte[]> words = isDamaged(given) ? lastOf(commandLine(), given) : null;
    String[] arguments = given.clone();
    for (int i = 0; i < given.length; i++) {
      if (given[i].indexOf(REPLACEMENT) >= 0) {
        arguments[i] = text(words == null ? null : words.get(i), i + 1);
      }
    }
    return arguments;
  }

  private static boolean isDamaged(String[] given) {
    for (String argument : given) {
      if (argument.indexOf(REPLACEMENT) >= 0) {
        return true;
      }
    }
    return false;
  }

  private static String text(byte[] bytes, int number) {
    Charset charset = areAscii() ? UTF_8 : localeCharset();
    try {
      if (bytes != null) {
        return charset.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
      }
    } catch (CharacterCodingException e) {
      throw new IllegalArgumentException(
          "argument " + number + " is not text in " + charset + ": " + escaped(bytes));
    }
    throw new IllegalArgumentException(
        "argument " + number + " cannot be read in this locale; set LC_ALL=" + LOCALE);
  }

  private static String escaped(byte[] bytes) {
    StringBuilder text = new StringBuilder();
    for (byte b : bytes) {
      if (b >= ' ' && b < 0x7f) {
        text.append((char) b);
      } else {
        text.append("\\x").append(Integer.toHexString(0x100 | (b & 0xff)).substring(1));
      }
    }
    return text.toString();
  }

  /** The last words of the command line; null unless they are the arguments that Java has given. */
  private static List<byte[]> lastOf(List<byte[]> words, String[] given) {
    int before = words.size() - given.length;
    if (before < 0) {
      return null;
    }
    List<byte[]> last = words.subList(before, words.size());
    for (int i = 0; i < given.length; i++) {
      if (!new String(last.get(i), localeCharset()).equals(given[i])) {
        return null;
      }
    }
    return last;
  }

  /** Whether a JVM of any locale gets them as they are. */
  static boolean needEncoding(String[] arguments) {
    for (String argument : arguments) {
      if (!isAscii(argument)) {
        return true;
      }
    }
    return false;
  }

  /** Whether all of its characters are of ASCII. */
  static boolean isAscii(String text) {
    return ASCII.newEncoder().canEncode(text);
  }

  /** The arguments in ASCII, which reaches another JVM whatever the locale of this one is. */
  @SuppressWarnings("JdkObsolete") // Java 8 takes the charset by its name only
  static List<String> encoded(String[] arguments) throws UnsupportedEncodingException {
    List<String> encoded = new ArrayList<String>();
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
   * The options between {@code java} and {@code -jar}, such as {@code -Xmx1g}.
   *
   * @return nothing where the system does not show command lines
   */
  static List<String> jvmOptions() {
    List<String> options = new ArrayList<String>();
    List<byte[]> words = commandLine();
    for (int i = 1; i < words.size(); i++) {
      String option = new String(words.get(i), localeCharset());
      if (option.equals("-jar")) {
        return options;
      }
      options.add(option);
    }
    return new ArrayList<String>();
  }

  /** The words with which this process was started; none where the system does not show them. */
  private static List<byte[]> commandLine() {
    List<byte[]> words = new ArrayList<byte[]>();
    try {
      InputStream in = new FileInputStream("/proc/self/cmdline");
      try {
        ByteArrayOutputStream word = new ByteArrayOutputStream();
        byte[] buffer = new byte[8192];
        for (int read = in.read(buffer); read > 0; read = in.read(buffer)) {
          int start = 0;
          for (int i = 0; i < read; i++) {
            if (buffer[i] == 0) {
              word.write(buffer, start, i - start);
              words.add(word.toByteArray());
              word.reset();
              start = i + 1;
            }
          }
          word.write(buffer, start, read - start);
        }
      } finally {
        in.close();
      }
    } catch (IOException e) {
      // No /proc.
      return new ArrayList<byte[]>();
    }
    return words;
  }
}
