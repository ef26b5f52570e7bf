package nbd.tls;

import java.io.IOException;
import java.nio.file.Path;

/** Thrown if a file of certificates or keys cannot be used; the message says which and why. */
public final class CertificateFileException extends IOException {
  private static final long serialVersionUID = 1;

  CertificateFileException(Path file, String problem) {
    super(file + ": " + problem);
  }

  CertificateFileException(Path file, String problem, Throwable cause) {
    super(file + ": " + problem, cause);
  }
}
