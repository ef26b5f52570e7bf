package nbd.cli;

/** Whether clients meet TLS. */
enum TlsMode {
  /** They may not use it. */
  OFF,
  /** They may, and need not. */
  ON,
  /** They have to. */
  REQUIRE
}
