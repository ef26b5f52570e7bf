package nbd.tls;

/** The versions of TLS that both sides speak; the NBD protocol asks for 1.2 at least. */
final class Versions {
  static final String[] ENABLED = {"TLSv1.3", "TLSv1.2"};

  private Versions() {}
}
