package nbd.cli;

import static java.nio.charset.StandardCharsets.US_ASCII;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;

/** Tells the user why the program ends, in one line. */
final class Failure {
  /** Made at the start, for when there is no memory to say more. */
  private static final byte[] OUT_OF_MEMORY = "nbd-multiconn: out of memory\n".getBytes(US_ASCII);

  private static final FileOutputStream ERR = new FileOutputStream(FileDescriptor.err);

  private Failure() {}

  /** Says it on standard error, however little memory is left. */
  static void report(Throwable failure) {
    try {
      System.err.println("nbd-multiconn: " + words(failure));
    } catch (OutOfMemoryError again) {
      reportOutOfMemory();
    }
  }

  @SuppressWarnings("EmptyCatch") // nobody is left to be told
  private static void reportOutOfMemory() {
    try {
      ERR.write(OUT_OF_MEMORY);
    } catch (IOException closed) {
    }
  }

  /** The failure in one line, for the user. */
  static String words(Throwable failure) {
    return switch (failure) {
      case IOException said -> firstLine(said);
      case OutOfMemoryError error ->
          "out of memory (" + error.getMessage() + "); the JVM option -Xmx gives more";
      case StackOverflowError error -> "the stack is too small; the JVM option -Xss gives more";
      // The JDK's own classes fail to load when the system has no descriptors left.
      default ->
          deepest(failure) instanceof IOException said
              ? OwnFile.reason(said)
              : "a mistake in the program: " + firstLine(failure);
    };
  }

  private static Throwable deepest(Throwable failure) {
    Throwable cause = failure;
    while (cause.getCause() != null) {
      cause = cause.getCause();
    }
    return cause;
  }

  private static String firstLine(Throwable failure) {
    String message = failure.getMessage();
    return message == null ? failure.toString() : message.lines().findFirst().orElse("");
  }
}
