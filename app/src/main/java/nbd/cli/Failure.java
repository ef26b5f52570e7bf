package nbd.cli;

import static java.nio.charset.StandardCharsets.US_ASCII;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;
import java.util.Objects;

/** The one line on standard error that says why the program ends. */
final class Failure {
  /** Made at the start, for when there is no memory to say more. */
  private static final byte[] OUT_OF_MEMORY = "nbd-multiconn: out of memory\n".getBytes(US_ASCII);

  private static final FileOutputStream ERR = new FileOutputStream(FileDescriptor.err);

  private Failure() {}

  /** Prints the line, however little memory is left. */
  static void report(Throwable failure) {
    try {
      System.err.println("nbd-multiconn: " + words(failure));
    } catch (OutOfMemoryError again) {
      reportOutOfMemory();
    }
  }

  @SuppressWarnings("EmptyCatch") // There is nowhere else to say it.
  private static void reportOutOfMemory() {
    try {
      ERR.write(OUT_OF_MEMORY);
    } catch (IOException closed) {
    }
  }

  /** Says a failure in one line. */
  static String words(Throwable failure) {
    return switch (failure) {
      case FileSystemException said when said.getFile() != null ->
          said.getFile() + ": " + reason(said);
      case IOException said -> firstLine(said);
      case OutOfMemoryError error ->
          "out of memory (" + error.getMessage() + "); the JVM option -Xmx gives more";
      case StackOverflowError error -> "the stack is too small; the JVM option -Xss gives more";
      // The JDK's own classes fail to load when the system has no descriptors left.
      default ->
          deepest(failure) instanceof IOException said
              ? reason(said)
              : "a mistake in the program: " + firstLine(failure);
    };
  }

  /** Says only the reason, for a message that names the file itself. */
  static String reason(IOException failure) {
    return switch (failure) {
      case AccessDeniedException denied -> "permission denied";
      case NoSuchFileException missing -> "no such file or directory";
      case FileSystemException other ->
          Objects.requireNonNullElseGet(
              other.getReason(), () -> String.valueOf(other.getMessage()));
      default -> String.valueOf(failure.getMessage());
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
