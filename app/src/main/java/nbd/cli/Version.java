package nbd.cli;

import picocli.CommandLine.IVersionProvider;

/** The program's version, as the jar's manifest has it. */
final class Version implements IVersionProvider {
  @Override
  public String[] getVersion() {
    String version = Version.class.getPackage().getImplementationVersion();
    return new String[] {
      "nbd-multiconn " + (version == null ? "(not from its jar)" : version),
      "Java " + Runtime.version()
    };
  }
}
