package nbd.check;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import nbd.check.Finding.Kind;
import nbd.check.Finding.Severity;
import nbd.client.ClientSettings;
import nbd.client.ExportInfo;
import nbd.client.NbdClient;
import nbd.client.NbdUri;
import nbd.protocol.OptionException;
import nbd.protocol.OptionReplyType;
import nbd.protocol.TransmissionFlag;
import nbd.storage.ListedExport;

/**
 * An examination of a server's descriptions of its export: in its list, before the export is
 * opened, and on each connection. A server of one client at a time is to have none meanwhile.
 */
final class Descriptions {
  private static final int CONNECTIONS = 4;

  /** Limit on the wait for a further connection: servers of one client leave the others waiting. */
  private static final Duration FURTHER = Duration.ofSeconds(2);

  private static final int MOST_LISTED = 8;

  private final Target target;
  private final ExportInfo export;
  private final Findings findings;

  Descriptions(Target target, Findings findings) {
    this.target = target;
    this.export = target.export();
    this.findings = findings;
  }

  /** Examines everything; says whether a multi-conn export serves more than one connection. */
  boolean examine() {
    findings.of(Kind.INFO, "asking for information", this::information);
    findings.of(Kind.LIST, "listing the exports", this::list);
    return export.has(TransmissionFlag.CAN_MULTI_CONN) && connections() > 1;
  }

  private void information() throws IOException {
    ExportInfo info;
    try {
      info = NbdClient.info(target.uri(), target.settings());
    } catch (OptionException refused) {
      if (refused.type() != OptionReplyType.ERR_UNSUP) {
        findings.warning(
            Kind.INFO,
            "INFO is refused for an export that can be opened: " + findings.message(refused));
      }
      return;
    }
    Comparison with = new Comparison(Kind.INFO, "INFO");
    with.compare(Severity.WARNING, "size", info.size(), export.size());
    with.compare(Severity.WARNING, "flags", info.flags(), export.flags());
    with.compare(Severity.WARNING, "block sizes", info.blockSizes(), export.blockSizes());
    with.compare(Severity.WARNING, "description", info.description(), export.description());
  }

  /** A comparison of what the server says somewhere with what it says when the export is opened. */
  private final class Comparison {
    private final Kind kind;
    private final String where;

    Comparison(Kind kind, String where) {
      this.kind = kind;
      this.where = where;
    }

    void compare(Severity severity, String what, Object there, Object opened) {
      if (!there.equals(opened)) {
        findings.add(
            severity,
            kind,
            "%s: %s %s, where opening the export said %s".formatted(where, what, there, opened));
      }
    }
  }

  private void list() throws IOException {
    List<ListedExport> listed;
    try {
      listed = NbdClient.list(target.uri(), target.settings());
    } catch (OptionException allowed) {
      return;
    }
    List<ListedExport> same =
        listed.stream().filter(each -> each.name().equals(export.name())).toList();
    if (same.isEmpty() && !export.name().isEmpty()) {
      findings.note(Kind.LIST, "the export \"%s\" is not in the list".formatted(export.name()));
    }
    Comparison with = new Comparison(Kind.LIST, "the list");
    for (ListedExport each : same) {
      if (!each.description().isEmpty()) {
        with.compare(Severity.WARNING, "description", each.description(), export.description());
      }
    }
    for (ListedExport each : listed.subList(0, Math.min(listed.size(), MOST_LISTED))) {
      requireKnown(each.name());
    }
  }

  private void requireKnown(String name) throws IOException {
    NbdUri uri = target.uri().withExportName(name);
    try {
      NbdClient.info(uri, target.settings());
    } catch (OptionException refused) {
      if (refused.type() == OptionReplyType.ERR_UNKNOWN) {
        findings.warning(
            Kind.LIST,
            "the export \"%s\" is in the list, but the server does not know it".formatted(name));
      }
    }
  }

  /** Opens several connections, and returns how many the server serves at a time. */
  private int connections() {
    ClientSettings settings = target.settings();
    Duration usual = settings.connectTimeout();
    ClientSettings impatient =
        new ClientSettings(
            usual.compareTo(FURTHER) < 0 ? usual : FURTHER, settings.requestTimeout());
    Comparison with = new Comparison(Kind.CONNECTIONS, "another connection");
    List<NbdClient> clients = new ArrayList<>();
    try {
      while (clients.size() < CONNECTIONS) {
        ClientSettings next = clients.isEmpty() ? settings : impatient;
        NbdClient client = NbdClient.connect(target.uri(), target.uri().exportName(), next);
        clients.add(client);
        with.compare(Severity.BROKEN, "size", client.export().size(), export.size());
        with.compare(Severity.BROKEN, "flags", client.export().flags(), export.flags());
      }
    } catch (IOException refused) {
      findings.add(
          clients.size() < 2 ? Severity.BROKEN : Severity.WARNING,
          Kind.CONNECTIONS,
          "multi-conn is advertised, but connection %d cannot be opened beside the others: %s"
              .formatted(clients.size() + 1, findings.message(refused)));
    } finally {
      clients.forEach(NbdClient::close);
    }
    return clients.size();
  }
}
